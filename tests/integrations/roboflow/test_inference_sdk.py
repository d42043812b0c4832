"""Roboflow's `inference-sdk` works unchanged with the ASGI server."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from d2serve.client import Client
from d2serve.detections import Detections
from tests.integrations.programs import run_with_masks
from tests.serving.asgi_server import AsgiServer, running_asgi_server

ENVIRONMENT = ".venv-vision"
IMAGE = "samples/shapes_02.png"
PROGRAM = Path(__file__).with_name("program.py")
# The first characters of a JPEG in base64.
JPEG_BASE64 = "/9j/"


@pytest.fixture(scope="module")
def asgi(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    with running_asgi_server(shapes_mar, log_dir=tmp_path_factory.mktemp("asgi-logs")) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def found(asgi: AsgiServer, shapes: Path) -> Detections:
    """The detections that d2serve's own client gets."""
    with Client(asgi.url) as client:
        [detections] = client.predict([shapes / IMAGE])
    assert len(detections) > 2
    return detections


@pytest.fixture(scope="module")
def outcome(
    asgi: AsgiServer, shapes: Path, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The output of the program, with its masks in `masks`."""
    file = tmp_path_factory.mktemp("roboflow") / "masks.npz"
    arguments = asgi.url, shapes / IMAGE
    return run_with_masks(repo_root, PROGRAM, *arguments, file=file, environment=ENVIRONMENT)


def test_boxes_scores_and_classes_are_those_of_the_other_routes(
    outcome: dict[str, Any], found: Detections
) -> None:
    result = outcome["one"]
    height, width = found.size_hw
    assert result["image"] == {"width": width, "height": height}
    assert result["time"] > 0
    boxes = np.array([[p[k] for k in ("x", "y", "width", "height")] for p in result["predictions"]])
    corners = np.hstack((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2))
    assert corners == pytest.approx(found.boxes_xyxy, abs=2e-3)
    scores = [each["confidence"] for each in result["predictions"]]
    assert scores == pytest.approx(found.scores.tolist(), abs=1e-5)
    assert [each["class_id"] for each in result["predictions"]] == found.classes.tolist()
    assert [each["class"] for each in result["predictions"]] == list(found.class_names)
    assert len({each["detection_id"] for each in result["predictions"]}) == len(found)


def test_rle_masks_keep_every_pixel_in_supervision(
    outcome: dict[str, Any], found: Detections
) -> None:
    assert np.array_equal(outcome["masks"]["rle"], found.masks_dense())


def test_polygons_keep_every_pixel_of_masks_of_one_part(
    outcome: dict[str, Any], found: Detections
) -> None:
    polygons, masks = outcome["masks"]["polygon"], found.masks_dense()
    exact = (polygons == masks).all(axis=(1, 2))
    assert exact.sum() >= len(found) / 2
    assert (polygons ^ masks).sum() < masks.sum() / 500, "the others lack small parts"


def test_lists_paths_arrays_pil_images_and_async_calls(
    outcome: dict[str, Any], found: Detections
) -> None:
    assert outcome["forms"] == [list(found.class_names)] * 3
    assert outcome["awaited"] == [list(found.class_names)] * 3
    assert outcome["drawn"] == [JPEG_BASE64] * 2


def test_options(outcome: dict[str, Any], found: Detections) -> None:
    names = list(found.class_names)
    confident = names[: int((found.scores >= 0.9).sum())]
    assert outcome["confident"] == confident != names
    assert outcome["low"] == outcome["best"] == outcome["many"] == names
    assert outcome["filtered"] == ["star"] * names.count("star")
    assert outcome["few"] == names[:2]
    assert outcome["v0"] == {"confident": confident, "drawn": JPEG_BASE64}


def test_the_server_and_its_models(outcome: dict[str, Any]) -> None:
    assert (outcome["info"], outcome["models"]) == ("d2serve", ["shapes"])


def test_the_sdk_shows_the_errors_of_the_contract(outcome: dict[str, Any]) -> None:
    for name in ("unknown_model", "unknown_version"):
        status, message = outcome[name]
        assert (status, "does not exist" in message) == (404, True)
    status, message = outcome["unknown_class"]
    assert status == 400
    assert "a class that the model does not have" in message
    assert "circle" in message
    assert outcome["no_model"][0] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model_id": "shapes"}, "`image` is not base64"),
        ({"model_id": "shapes", "image": {"type": "url", "value": "http://a/b"}}, "not base64"),
        ({"model_id": "shapes", "image": {"type": "base64", "value": "?"}}, "not valid base64"),
        ({"model_id": "shapes", "image": []}, "at least one image"),
        ({"model_id": 3, "image": "AAAA"}, "`model_id` is missing"),
        ([1], "not a JSON object"),
    ],
)
def test_invalid_requests_have_the_contract_error_and_a_message(
    asgi: AsgiServer, body: Any, message: str
) -> None:
    url = f"{asgi.url}/infer/instance_segmentation"
    response = httpx.post(url, json=body, timeout=60, trust_env=False)
    assert response.status_code == 400
    content = response.json()
    assert message in content["message"]
    assert content["error"]["code"] == "bad_request"


@pytest.mark.parametrize("number", ["NaN", "1e999", '"high"', "2"])
def test_invalid_confidences_are_refused(asgi: AsgiServer, number: str) -> None:
    body = f'{{"model_id": "shapes", "image": "AAAA", "confidence": {number}}}'
    response = httpx.post(
        f"{asgi.url}/infer/object_detection", content=body, timeout=60, trust_env=False
    )
    assert response.status_code == 400
    assert "score_threshold must be a number" in response.json()["message"]


def test_an_image_that_cannot_be_used_leaves_the_others(asgi: AsgiServer, shapes: Path) -> None:
    good = {"type": "base64", "value": base64.b64encode((shapes / IMAGE).read_bytes()).decode()}
    body = {
        "model_id": "shapes",
        "image": [good, {"type": "base64", "value": "AAAA"}],
        "visualize_predictions": True,
    }
    url = f"{asgi.url}/infer/instance_segmentation"
    first, second = httpx.post(url, json=body, timeout=60, trust_env=False).json()
    assert first["predictions"]
    assert first["visualization"].startswith(JPEG_BASE64)
    assert set(second) == {"error"}
    [alone] = httpx.post(url, json={**body, "image": [good]}, timeout=60, trust_env=False).json()
    assert len(alone["predictions"]) == len(first["predictions"])
