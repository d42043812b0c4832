"""The API's JSON as `Detections`."""

import base64
import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2serve.client.results import detections_of, error_of, read_entries, results_of
from d2serve.client.transport import Reply
from d2serve.detections import Detections
from d2serve.errors import PredictionError
from d2serve.outputs.formats import default_object
from tests.outputs.results import (
    MODEL,
    NAMES,
    NO_DETECTIONS,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    result_of,
)

SIZE_HW = (6, 8)
NOTHING: dict[str, Any] = {
    **{name: [] for name in ("labels", "boxes", "scores", "classes", "names", "masks")},
    "image": {"width": 8, "height": 6},
}
ERROR = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}


def square(top: int, left: int, side: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def two_instances(masks: list[Any]) -> dict[str, Any]:
    return NOTHING | {
        "boxes": [[1, 2, 4, 5], [0, 0, 2, 2]],
        "scores": [0.9, 0.5],
        "classes": [3, 0],
        "names": ["star", "ring"],
        "masks": masks,
    }


def rle(mask: "np.ndarray[Any, Any]") -> dict[str, Any]:
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return encoded | {"counts": encoded["counts"].decode()}


def reply_of(content: Any) -> Reply:
    return Reply(json.dumps(content).encode())


MASKS = [square(2, 1, 3), square(0, 0, 2)]
POLYGONS = [[[1, 2, 4, 2, 4, 5, 1, 5]], [[0, 0, 2, 0, 2, 2, 0, 2]]]


@pytest.mark.parametrize(
    "segmentations", [[rle(mask) for mask in MASKS], POLYGONS], ids=["rle", "polygon"]
)
def test_instances_are_arrays(segmentations: list[Any]) -> None:
    found = detections_of(two_instances(segmentations))
    assert (len(found), found.size_hw, found.class_names) == (2, SIZE_HW, ("star", "ring"))
    np.testing.assert_array_equal(found.boxes_xyxy, [[1, 2, 4, 5], [0, 0, 2, 2]])
    np.testing.assert_array_equal(found.scores, np.array([0.9, 0.5], np.float32))
    np.testing.assert_array_equal(found.classes, [3, 0])
    np.testing.assert_array_equal(found.masks_dense(), MASKS)
    assert found.masks_polygons() == detections_of(two_instances(POLYGONS)).masks_polygons()


def test_image_without_instances_has_empty_arrays() -> None:
    found = detections_of(NOTHING | {"keypoints": []})
    assert (found.boxes_xyxy.shape, found.masks_dense().shape) == ((0, 4), (0, *SIZE_HW))
    assert found.keypoints is not None
    assert found.keypoints.shape == (0, 0, 3)


def test_model_without_masks() -> None:
    found = detections_of(two_instances([]))
    assert not found.has_masks
    with pytest.raises(ValueError, match="the model has no masks"):
        found.masks_rle()


def test_errors_stay_with_their_image() -> None:
    entries = read_entries(reply_of({"predictions": [NOTHING, {"error": ERROR}]}))
    first, second = results_of(entries, 0)
    assert error_of(entries[0]) is None
    assert not isinstance(first, PredictionError)
    assert isinstance(second, PredictionError)
    assert (second.code, second.hint) == ("bad_request", "send all of it")


@pytest.mark.parametrize(
    "content",
    [
        *([], "text", 3, {"predictions": 3}, {"status": "Healthy"}),
        *({"predictions": [[]]}, {"predictions": ["error"]}),
    ],
)
def test_response_of_another_route_is_an_error(content: Any) -> None:
    with pytest.raises(PredictionError, match="the response is not a prediction") as raised:
        read_entries(reply_of(content))
    assert "use the URL" in raised.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        {"image": {}},
        {"image": {"width": "8", "height": 6}},
        {"image": {"width": 8, "height": 6.5}},
        {"image": {"width": 8, "height": -6}, "masks": []},
        {"classes": [2**64, 0]},
        {"names": 3},
        {"boxes": [[1, 2, 3]]},
        {"masks": [{"size": [6, 8], "counts": "1"}] * 2},
        {"semantic": {"png": "???", "segments_info": []}},
        {"semantic": {"png": "AAAA", "segments_info": []}},
        {"semantic": {"png": "", "segments_info": []}},
    ],
)
def test_damaged_response_is_an_error(damage: dict[str, Any]) -> None:
    with pytest.raises(PredictionError, match="no_prediction: the response cannot be read"):
        detections_of(two_instances(POLYGONS) | damage)


def test_map_of_another_size_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "imdecode")
    _, png = cv2.imencode(".png", np.zeros((60, 80), np.uint8))
    content = {"png": base64.b64encode(png.tobytes()).decode(), "segments_info": []}
    with pytest.raises(PredictionError, match="a map is not a PNG of 8x6 pixels"):
        detections_of(two_instances(POLYGONS) | {"semantic": content})


@pytest.mark.parametrize(
    "served",
    [
        pytest.param(NO_DETECTIONS, id="nothing"),
        pytest.param(TWO_WITHOUT_MASKS, id="boxes"),
        pytest.param(TWO, id="masks"),
        pytest.param(TWO_OF_ALL, id="masks-keypoints-and-maps"),
        pytest.param(replace(NO_DETECTIONS, semantic=np.full((40, 30), 3, np.int32)), id="map"),
    ],
)
def test_response_has_all_of_the_servers_detections(served: Detections) -> None:
    response = json.loads(json.dumps(default_object(result_of(served))))
    found = detections_of(response, len(MODEL.class_names))
    assert found.size_hw == served.size_hw
    assert found.class_names == tuple(NAMES[index] for index in served.classes)
    assert found.has_masks == served.has_masks
    if served.has_masks:
        assert found.masks_rle() == served.masks_rle()
    np.testing.assert_array_equal(found.classes, served.classes)
    for name in ("boxes_xyxy", "scores", "mask_scores", "keypoints"):
        received, sent = getattr(found, name), getattr(served, name)
        assert (received is None) == (sent is None)
        if sent is not None:
            np.testing.assert_allclose(received, sent, rtol=0, atol=6e-4)
    np.testing.assert_allclose(found.scores, served.scores, rtol=0, atol=6e-7)
    np.testing.assert_array_equal(found.semantic, served.semantic)
    assert (found.panoptic is None) == (served.panoptic is None)
    if found.panoptic is not None and served.panoptic is not None:
        np.testing.assert_array_equal(found.panoptic.ids, served.panoptic.ids)
        assert found.panoptic.segments == (
            replace(served.panoptic.segments[0], score=0.998),
            served.panoptic.segments[1],
        )
