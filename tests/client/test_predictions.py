"""The API's JSON as arrays."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2serve.client.predictions import Prediction, read_predictions
from d2serve.errors import PredictionError

SIZE_HW = (6, 8)
NOTHING: dict[str, Any] = {
    **{name: [] for name in ("labels", "boxes", "scores", "classes", "names", "prediction")},
    "image": {"width": 8, "height": 6},
}


def square(top: int, left: int, side: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def two_detections(masks: list[Any]) -> dict[str, Any]:
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


MASKS = [square(2, 1, 3), square(0, 0, 2)]
POLYGONS = [[[1, 2, 4, 2, 4, 5, 1, 5]], [[0, 0, 2, 0, 2, 2, 0, 2]]]


@pytest.mark.parametrize(
    "segmentations", [[rle(mask) for mask in MASKS], POLYGONS], ids=["rle", "polygon"]
)
def test_detections_are_arrays(segmentations: list[Any]) -> None:
    prediction = Prediction.from_json(two_detections(segmentations))
    assert len(prediction) == 2
    assert prediction.size_hw == SIZE_HW
    np.testing.assert_array_equal(prediction.boxes_xyxy, [[1, 2, 4, 5], [0, 0, 2, 2]])
    np.testing.assert_array_equal(prediction.scores, [0.9, 0.5])
    np.testing.assert_array_equal(prediction.classes, [3, 0])
    assert prediction.boxes_xyxy.dtype == np.float64
    assert prediction.classes.dtype == np.int64
    assert prediction.names == ("star", "ring")
    assert prediction.masks().dtype == np.bool_
    np.testing.assert_array_equal(prediction.masks(), MASKS)


def test_arrays_without_detections_have_shapes() -> None:
    prediction = Prediction.from_json(NOTHING | {"masks": []})
    assert len(prediction) == 0
    assert prediction.boxes_xyxy.shape == (0, 4)
    assert prediction.classes.dtype == np.int64
    assert prediction.masks().shape == (0, *SIZE_HW)


def test_empty_polygon_is_an_empty_mask() -> None:
    masks = Prediction.from_json(two_detections([POLYGONS[0], []])).masks()
    assert masks[0].any()
    assert not masks[1].any()


def test_instance_in_several_parts_is_one_mask() -> None:
    parts = [polygon for [polygon] in POLYGONS]
    masks = Prediction.from_json(two_detections([parts, parts[:1]])).masks()
    np.testing.assert_array_equal(masks[0], MASKS[0] | MASKS[1])


def test_response_without_masks() -> None:
    prediction = Prediction.from_json(NOTHING)
    with pytest.raises(ValueError, match="the response contains no masks"):
        prediction.masks()


def test_several_images() -> None:
    first, second = read_predictions({"predictions": [NOTHING, two_detections(POLYGONS)]})
    assert (len(first), len(second)) == (0, 2)


def test_failed_image_raises() -> None:
    error = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
    with pytest.raises(
        PredictionError, match=r"bad_request: truncated \(send all of it\)"
    ) as raised:
        read_predictions({"predictions": [NOTHING, {"error": error}]})
    assert raised.value.status == 400
