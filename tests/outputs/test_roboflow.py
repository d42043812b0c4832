"""The format of roboflow's inference API."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from d2serve.detections import Detections
from d2serve.outputs.roboflow import roboflow_object
from tests.integrations.samples import CLASS_NAMES, SIZE_HW, masks, sample
from tests.outputs.results import MODEL, TWO_OF_ALL, TWO_WITHOUT_MASKS, result_of

NAMED = replace(MODEL, class_names=CLASS_NAMES)


def drawn(found: Detections, index: int) -> npt.NDArray[np.bool_]:
    """The mask that supervision draws from `points`: outlines include their pixels."""
    predictions = roboflow_object(result_of(found, mask_encoding="polygon", model=NAMED))
    points = [[point["x"], point["y"]] for point in predictions["predictions"][index]["points"]]
    assert len(points) >= 3
    filled = cv2.fillPoly(np.zeros(SIZE_HW, np.uint8), [np.array(points, np.int32)], 1)
    return np.asarray(filled, np.bool_)


@pytest.mark.parametrize("index", [2, 3, 4], ids=["rows", "one-pixel", "all-pixels"])
def test_points_keep_every_pixel_of_one_part_without_holes(index: int) -> None:
    assert np.array_equal(drawn(sample(), index), masks()[index])


def test_points_fill_holes_and_keep_the_largest_part() -> None:
    solid, larger = np.zeros(SIZE_HW, np.bool_), np.zeros(SIZE_HW, np.bool_)
    solid[5:20, 5:30] = True
    larger[30:41, 10:33] = True
    assert np.array_equal(drawn(sample(), 0), solid)
    assert np.array_equal(drawn(sample(), 1), larger)


def test_an_empty_mask_is_the_center_of_its_box() -> None:
    """Without points, supervision would drop the masks of all instances."""
    found = replace(sample(with_masks=False).select([0]), masks=np.zeros((1, 28, 28), np.float32))
    assert np.argwhere(drawn(found, 0)).tolist() == [[12, 18]]


def test_an_instance_without_a_mask_has_a_box_and_a_class() -> None:
    content = roboflow_object(result_of(TWO_WITHOUT_MASKS))
    first, second = content["predictions"]
    assert first.pop("detection_id") != second["detection_id"]
    assert first == {
        "x": 48.25,
        "y": 40.125,
        "width": 64.5,
        "height": 63.75,
        "confidence": 0.998,
        "class": "horse",
        "class_id": 2,
    }
    assert content["image"] == {"width": 160, "height": 80}


def test_keypoints_have_their_position_as_class() -> None:
    found = sample(with_keypoints=True)
    first = roboflow_object(result_of(found, model=NAMED))["predictions"][0]
    assert first["keypoints"] == [
        {"x": 17.5, "y": 12.5, "confidence": 0.9, "class_id": 0, "class": "0"},
        {"x": 5.0, "y": 5.0, "confidence": 0.01, "class_id": 1, "class": "1"},
    ]


def test_the_quality_of_masks_is_beside_them() -> None:
    predictions = roboflow_object(result_of(TWO_OF_ALL))["predictions"]
    assert [each["mask_score"] for each in predictions] == [0.5, -0.25]
    assert all("rle_mask" in each for each in predictions)
