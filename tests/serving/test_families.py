"""Models with keypoints and segmentation maps: Detectron2's results over HTTP."""

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

import d2serve
from d2serve.building.archive import ONE_WORKER, build_archive
from d2serve.client import Client
from d2serve.servers.torchserve.launcher.server import running_server
from tests.client.comparison import assert_equal
from tests.goldens.cases import TINY, GoldenModel
from tests.goldens.comparison import (
    BOX_TOLERANCE_PX,
    KEYPOINT_TOLERANCE_PX,
    MIN_AGREEMENT,
    SCORE_TOLERANCE,
)
from tests.goldens.results import read_result
from tests.goldens.upstream import UpstreamResult
from tests.serving.traffic import Body, image_body, pixels

CLIENTS = 12
GOLDENS = [golden for golden in TINY if golden.name in {"keypoint_rcnn", "panoptic_fpn"}]


@dataclass(frozen=True)
class ServedGolden:
    """A model whose upstream results are known, under the URL that serves it."""

    golden: GoldenModel
    archive: Path
    url: str

    def expected(self, image: Path) -> UpstreamResult:
        return read_result(self.golden.result_path(image))


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda golden: golden.name)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedGolden]:
    golden: GoldenModel = request.param
    folder = tmp_path_factory.mktemp(golden.name)
    weights = folder / "model_final.pth"
    torch.save({"model": golden.build().state_dict()}, weights)
    archive = build_archive(
        golden.config,
        weights,
        folder / f"{golden.name}.mar",
        model_config={"batchSize": 4, "maxBatchDelay": 50, **ONE_WORKER},
    )
    with running_server(archive, log_dir=tmp_path_factory.mktemp("logs")) as running:
        yield ServedGolden(golden, archive, f"{running.url}/invocations")


def body_with_accept(image: Path, accept: str) -> Body:
    body = image_body(image)
    return Body(body.content, body.content_type, accept)


def assert_as_upstream(served: ServedGolden, image: Path, prediction: dict[str, Any]) -> None:
    """Compare boxes, scores, keypoints and maps of a prediction with those of Detectron2."""
    expected = served.expected(image)
    np.testing.assert_allclose(prediction["boxes"], expected.boxes_xyxy, atol=BOX_TOLERANCE_PX)
    np.testing.assert_allclose(prediction["scores"], expected.scores, atol=SCORE_TOLERANCE)
    assert prediction["classes"] == expected.classes.tolist()
    assert ("keypoints" in prediction) == (expected.keypoints is not None)
    if expected.keypoints is not None:
        found = np.array(prediction["keypoints"])
        np.testing.assert_allclose(
            found[..., :2], expected.keypoints[..., :2], atol=KEYPOINT_TOLERANCE_PX
        )
        np.testing.assert_allclose(found[..., 2], expected.keypoints[..., 2], atol=SCORE_TOLERANCE)
    assert ("panoptic" in prediction) == (expected.panoptic is not None)
    assert ("semantic" in prediction) == (expected.semantic is not None)
    if expected.panoptic is not None and expected.semantic is not None:
        assert (ids_of(prediction["panoptic"]) == expected.panoptic).mean() >= MIN_AGREEMENT
        assert (ids_of(prediction["semantic"]) - 1 == expected.semantic).mean() >= MIN_AGREEMENT


def ids_of(content: dict[str, Any]) -> npt.NDArray[np.int_]:
    png = Image.open(io.BytesIO(base64.b64decode(content["png"], validate=True)))
    return np.asarray(np.asarray(png).astype(int) @ (1, 256, 256 * 256))


def test_json_equals_upstream(http: httpx.Client, served: ServedGolden) -> None:
    for image in served.golden.images:
        response = image_body(image).post(http, served.url)
        assert response.status_code == 200, response.text
        assert_as_upstream(served, image, response.json())


def test_arrays_equal_upstream(http: httpx.Client, served: ServedGolden) -> None:
    image = served.golden.images[0]
    expected = served.expected(image)
    response = body_with_accept(image, "application/x-npz").post(http, served.url)
    arrays = np.load(io.BytesIO(response.content), allow_pickle=False)
    np.testing.assert_allclose(arrays["boxes"], expected.boxes_xyxy, atol=BOX_TOLERANCE_PX)
    for name in ("keypoints", "panoptic", "semantic"):
        assert (name in arrays) == (getattr(expected, name) is not None)
    if expected.keypoints is not None:
        tolerance = KEYPOINT_TOLERANCE_PX
        np.testing.assert_allclose(arrays["keypoints"], expected.keypoints, atol=tolerance)
    if expected.panoptic is not None:
        assert (arrays["panoptic"] == expected.panoptic).mean() >= MIN_AGREEMENT
        assert (arrays["semantic"] == expected.semantic).mean() >= MIN_AGREEMENT


def test_detections_are_drawn_on_the_image(http: httpx.Client, served: ServedGolden) -> None:
    image = served.golden.images[0]
    response = body_with_accept(image, "image/png").post(http, served.url)
    assert response.status_code == 200
    drawn = np.asarray(Image.open(io.BytesIO(response.content)))
    assert drawn.shape == pixels(image).shape
    assert (drawn != pixels(image)).any()


def test_concurrent_clients_get_their_own_results(http: httpx.Client, served: ServedGolden) -> None:
    images = [served.golden.images[index % 2] for index in range(CLIENTS)]
    broken = Body(b"no image", "image/jpeg")
    bodies = [broken if index % 4 == 3 else image_body(p) for index, p in enumerate(images)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        responses = list(pool.map(lambda body: body.post(http, served.url), bodies))
    for image, body, response in zip(images, bodies, responses, strict=True):
        if body is broken:
            assert response.status_code == 415
        else:
            assert response.status_code == 200, response.text
            assert_as_upstream(served, image, response.json())


def test_client_has_the_results_of_a_model_in_this_process(
    served: ServedGolden, samples: list[Path]
) -> None:
    with d2serve.load(served.archive) as model, Client(served.url) as client:
        assert client.class_names == model.class_names
        for found, expected in zip(client.predict(samples), model.predict(samples), strict=True):
            assert_equal(found, expected)
