"""Models with keypoints and with maps of all pixels, served: upstream's answers over HTTP."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from d2serve.building.archive import ONE_WORKER, build_archive
from d2serve.servers.torchserve.launcher.server import running_server
from tests.goldens.answers import read_answer
from tests.goldens.cases import TINY, GoldenModel
from tests.goldens.comparison import (
    BOX_TOLERANCE_PX,
    KEYPOINT_TOLERANCE_PX,
    LEAST_AGREEMENT,
    SCORE_TOLERANCE,
)
from tests.goldens.upstream import UpstreamAnswer
from tests.serving.traffic import Body, picture_body, pixels

CLIENTS = 12
GOLDENS = [golden for golden in TINY if golden.name in {"keypoint_rcnn", "panoptic_fpn"}]


@dataclass(frozen=True)
class ServedGolden:
    """A model whose upstream answers are known, under the URL that serves it."""

    golden: GoldenModel
    url: str

    def expected(self, picture: Path) -> UpstreamAnswer:
        return read_answer(self.golden.answer_path(picture))


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda golden: golden.name)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedGolden]:
    golden: GoldenModel = request.param
    folder = tmp_path_factory.mktemp(golden.name)
    weights = folder / "model_final.pth"
    torch.save({"model": golden.build().state_dict()}, weights)
    serving = {"batchSize": 4, "maxBatchDelay": 50, **ONE_WORKER}
    archive = build_archive(golden.config, weights, golden.name, folder, serving=serving)
    with running_server(archive, log_dir=tmp_path_factory.mktemp("logs")) as running:
        yield ServedGolden(golden, f"{running.url}/invocations")


def asked_as(picture: Path, accept: str) -> Body:
    body = picture_body(picture)
    return Body(body.content, body.content_type, accept)


def assert_as_upstream(served: ServedGolden, picture: Path, answer: dict[str, Any]) -> None:
    """Boxes, scores, keypoints and maps of a default JSON answer, as far as upstream has them."""
    expected = served.expected(picture)
    np.testing.assert_allclose(answer["boxes"], expected.boxes_xyxy, atol=BOX_TOLERANCE_PX)
    np.testing.assert_allclose(answer["scores"], expected.scores, atol=SCORE_TOLERANCE)
    assert answer["classes"] == expected.classes.tolist()
    assert ("keypoints" in answer) == (expected.keypoints is not None)
    if expected.keypoints is not None:
        found = np.array(answer["keypoints"])
        np.testing.assert_allclose(
            found[..., :2], expected.keypoints[..., :2], atol=KEYPOINT_TOLERANCE_PX
        )
        np.testing.assert_allclose(found[..., 2], expected.keypoints[..., 2], atol=SCORE_TOLERANCE)
    assert ("panoptic" in answer) == (expected.panoptic is not None)
    assert ("semantic" in answer) == (expected.semantic is not None)
    if expected.panoptic is not None and expected.semantic is not None:
        assert (ids_of(answer["panoptic"]) == expected.panoptic).mean() >= LEAST_AGREEMENT
        assert (ids_of(answer["semantic"]) - 1 == expected.semantic).mean() >= LEAST_AGREEMENT


def ids_of(content: dict[str, Any]) -> npt.NDArray[np.int_]:
    png = Image.open(io.BytesIO(base64.b64decode(content["png"], validate=True)))
    return np.asarray(np.asarray(png).astype(int) @ (1, 256, 256 * 256))


def test_json_says_what_upstream_says(http: httpx.Client, served: ServedGolden) -> None:
    for picture in served.golden.pictures:
        response = picture_body(picture).post(http, served.url)
        assert response.status_code == 200, response.text
        assert_as_upstream(served, picture, response.json())


def test_arrays_have_the_same(http: httpx.Client, served: ServedGolden) -> None:
    picture = served.golden.pictures[0]
    expected = served.expected(picture)
    response = asked_as(picture, "application/x-npz").post(http, served.url)
    arrays = np.load(io.BytesIO(response.content), allow_pickle=False)
    np.testing.assert_allclose(arrays["boxes"], expected.boxes_xyxy, atol=BOX_TOLERANCE_PX)
    for name in ("keypoints", "panoptic", "semantic"):
        assert (name in arrays) == (getattr(expected, name) is not None)
    if expected.keypoints is not None:
        tolerance = KEYPOINT_TOLERANCE_PX
        np.testing.assert_allclose(arrays["keypoints"], expected.keypoints, atol=tolerance)
    if expected.panoptic is not None:
        assert (arrays["panoptic"] == expected.panoptic).mean() >= LEAST_AGREEMENT
        assert (arrays["semantic"] == expected.semantic).mean() >= LEAST_AGREEMENT


def test_a_picture_shows_it(http: httpx.Client, served: ServedGolden) -> None:
    picture = served.golden.pictures[0]
    response = asked_as(picture, "image/png").post(http, served.url)
    assert response.status_code == 200
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    assert drawn.shape == pixels(picture).shape
    assert (drawn != pixels(picture)).any()


def test_clients_at_once_each_get_their_own(http: httpx.Client, served: ServedGolden) -> None:
    pictures = [served.golden.pictures[index % 2] for index in range(CLIENTS)]
    broken = Body(b"no picture", "image/jpeg")
    bodies = [broken if index % 4 == 3 else picture_body(p) for index, p in enumerate(pictures)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        responses = list(pool.map(lambda body: body.post(http, served.url), bodies))
    for picture, body, response in zip(pictures, bodies, responses, strict=True):
        if body is broken:
            assert response.status_code == 415
        else:
            assert response.status_code == 200, response.text
            assert_as_upstream(served, picture, response.json())
