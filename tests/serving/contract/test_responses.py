"""Section 4 of the contract: every response type and format, through the real servers."""

import io
import json
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.serving.contract.rows import (
    CUSTOM_ATTRIBUTES,
    Array,
    base64_of,
    json_of,
    npy_of,
    opened,
    png_of,
)

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
KEYS = ["labels", "boxes", "scores", "classes", "names", "masks", "prediction", "image"]
NAMES = ["circle", "triangle", "square", "star", "cross", "ring"]
TRUNCATED = b"\x89PNG\r\n\x1a\n"
CORNERS = (0, 0, 1, 1)


def predict(
    http: httpx.Client, url: str, image: Array, attributes: str = "", **headers: str
) -> Any:
    """The JSON response to an image with options."""
    sent = png_of(image, **{CUSTOM_ATTRIBUTES: attributes}, **headers)
    response = sent.post(http, url)
    assert response.status_code == 200, response.text
    return response.json()


def test_json_of_one_image(http: httpx.Client, route_url: str, image: Array) -> None:
    content = predict(http, route_url, image, Accept="application/json")
    height, width = image.shape[:2]
    assert list(content) == KEYS
    assert content["image"] == {"width": width, "height": height}
    assert content["scores"] == sorted(content["scores"], reverse=True)
    assert content["names"] == [NAMES[index] for index in content["classes"]]
    for label, name, score in zip(
        content["labels"], content["names"], content["scores"], strict=True
    ):
        assert label == f"{name} {score:.0%}"
    for row, box, mask in zip(
        content["prediction"], content["boxes"], content["masks"], strict=True
    ):
        assert mask["size"] == [height, width]
        relative = np.array(box) / [width, height, width, height]
        np.testing.assert_allclose(row[2:], relative, atol=1e-5)
    assert content["names"]


def test_all_keys_are_present_without_detections(http: httpx.Client, route_url: str) -> None:
    content = predict(http, route_url, np.full((40, 60, 3), 127, np.uint8))
    assert content == {
        **{key: [] for key in KEYS},
        "image": {"width": 60, "height": 40},
    }


def test_the_error_of_an_image_replaces_its_prediction(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    good = base64_of(png_of(image).body)
    response = json_of({"images": [good, base64_of(TRUNCATED), good]}).post(http, route_url)
    assert response.status_code == 200
    first, second, third = response.json()["predictions"]
    assert first["classes"] == third["classes"] == prediction_of(image)["classes"]
    assert second["error"]["code"] == "bad_request"
    assert sorted(second["error"]) == ["code", "hint", "message"]


def test_polygons(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    height, width = image.shape[:2]
    polygons = predict(http, route_url, image, "masks=polygon")["masks"]
    for name, outlines, mask in zip(
        prediction_of(image)["names"], polygons, prediction_of(image)["masks"], strict=True
    ):
        drawn = coco_mask.merge(coco_mask.frPyObjects(outlines, height, width))
        if name != "ring":  # outlines fill holes
            assert coco_mask.iou([drawn], [mask], [False])[0][0] > 0.97


def test_no_masks(http: httpx.Client, route_url: str, image: Array) -> None:
    assert predict(http, route_url, image, "masks=none")["masks"] == []


def test_clarify(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    assert predict(http, route_url, image, "format=clarify") == prediction_of(image)["prediction"]
    batch = npy_of(np.stack([image, image]), "format=clarify").post(http, route_url).json()
    assert [[row[0] for row in rows] for rows in batch] == [prediction_of(image)["classes"]] * 2


def test_clarify_of_a_batch_of_one(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    [rows] = npy_of(image[None], "format=clarify").post(http, route_url).json()
    assert [row[0] for row in rows] == prediction_of(image)["classes"]
    [scores] = npy_of(image[None], "format=clarify-scores").post(http, route_url).json()
    assert scores == pytest.approx(best_scores(prediction_of(image)), abs=1e-4)


def best_scores(found: dict[str, Any]) -> list[float]:
    return [
        max(
            (s for s, c in zip(found["scores"], found["classes"], strict=True) if c == index),
            default=0,
        )
        for index in range(len(NAMES))
    ]


def test_clarify_scores(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    expected = best_scores(prediction_of(image))
    assert predict(http, route_url, image, "format=clarify-scores") == pytest.approx(expected)
    sent = png_of(
        image, **{CUSTOM_ATTRIBUTES: "format=clarify-scores", "Accept": "application/jsonlines"}
    )
    response = sent.post(http, route_url)
    assert response.headers["content-type"] == "application/jsonlines"
    [line] = response.text.splitlines()
    assert json.loads(line) == {"prediction": pytest.approx(expected)}


def test_coco(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    found = prediction_of(image)
    response = npy_of(np.stack([image, image]), "format=coco").post(http, route_url)
    results = response.json()
    assert [result["image_id"] for result in results] == [0] * len(found["boxes"]) + [1] * len(
        found["boxes"]
    )
    for result, box, class_index, mask in zip(
        results, found["boxes"], found["classes"], found["masks"], strict=False
    ):
        x1, y1, x2, y2 = box
        assert result["category_id"] == class_index
        np.testing.assert_allclose(result["bbox"], [x1, y1, x2 - x1, y2 - y1], atol=0.01)
        assert coco_mask.iou([result["segmentation"]], [mask], [False])[0][0] > 0.99


JUMPSTART = {
    "by-format": ("format=jumpstart", "*/*", None),
    "by-accept": ("", "application/json;verbose", None),
    "by-accept-of-two": ("", "application/json;verbose;n_predictions=2", 2),
}


@pytest.mark.parametrize("name", JUMPSTART)
def test_jumpstart(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    attributes, accept, most = JUMPSTART[name]
    content = predict(http, route_url, image, attributes, Accept=accept)
    found = prediction_of(image)
    assert len(found["classes"]) > 2
    assert content["labels"] == NAMES
    assert content["classes"] == found["classes"][:most]
    assert content["scores"] == pytest.approx(found["scores"][:most], abs=1e-4)
    np.testing.assert_allclose(
        content["normalized_boxes"], [row[2:] for row in found["prediction"][:most]], atol=1e-4
    )
    assert {"masks", "image_with_masks"} <= set(content)


def test_json_lines(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    sent = npy_of(np.stack([image, image]))
    response = http.post(
        route_url,
        content=sent.body,
        headers={"Content-Type": "application/x-npy", "Accept": "application/jsonlines"},
    )
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["classes"] for line in lines] == [prediction_of(image)["classes"]] * 2


@pytest.mark.parametrize(
    ("response_type", "accept", "file_format"),
    [
        ("jpeg", None, "JPEG"),
        ("png", None, "PNG"),
        ("json", "image/jpeg", "JPEG"),
        ("json", "image/png", "PNG"),
    ],
)
def test_an_overlay(
    http: httpx.Client,
    route_url: str,
    image: Array,
    response_type: str,
    accept: str | None,
    file_format: str,
) -> None:
    headers = {"Accept": accept} if accept else {}
    attributes = f"response_type={response_type}"
    response = png_of(image, **{CUSTOM_ATTRIBUTES: attributes}, **headers).post(http, route_url)
    drawn = opened(response.content)
    assert drawn.format == file_format
    assert drawn.size == (image.shape[1], image.shape[0])
    assert (np.abs(np.asarray(drawn, int) - image).max(axis=2) > 40).any()


def test_npy(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    response = png_of(image, Accept="application/x-npy").post(http, route_url)
    assert response.headers["content-type"] == "application/x-npy"
    rows = np.load(io.BytesIO(response.content))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, prediction_of(image)["prediction"], atol=1e-4)


def test_npz(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    response = png_of(image, Accept="application/x-npz").post(http, route_url)
    assert response.headers["content-type"] == "application/x-npz"
    found = prediction_of(image)
    with np.load(io.BytesIO(response.content)) as arrays:
        np.testing.assert_allclose(arrays["boxes"], found["boxes"], atol=0.01)
        np.testing.assert_allclose(arrays["scores"], found["scores"], atol=1e-4)
        assert arrays["classes"].tolist() == found["classes"]
        assert arrays["masks"].dtype == np.uint8
        masks = [coco_mask.decode(mask) for mask in found["masks"]]
        assert (arrays["masks"] == np.stack(masks)).mean() > 0.999


def test_every_response_carries_server_timing(
    http: httpx.Client, route_url: str, image: Array
) -> None:
    stages = (rf"{stage};dur=\d+\.\d\d" for stage in ("decode", "queue", "forward", "encode"))
    timing = re.compile(", ".join([*stages, r'batch;desc="\d+"']))
    good, bad = png_of(image), png_of(image, Accept="audio/mpeg")
    for sent in (good, bad):
        assert timing.fullmatch(sent.post(http, route_url).headers["server-timing"])


def test_the_jumpstart_image_is_an_overlay(http: httpx.Client, url: str, image: Array) -> None:
    content = predict(http, url, image, "format=jumpstart")
    drawn = opened(b64decode(content["image_with_masks"]))
    assert drawn.size == (image.shape[1], image.shape[0])
