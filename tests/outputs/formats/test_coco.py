import numpy as np
import pycocotools.mask
import pytest
from pycocotools.coco import COCO

from d2serve.outputs.formats import coco_results
from tests.fakes import detections_of
from tests.outputs.results import (
    NOTHING,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    dense_masks,
    result_of,
)


def test_nothing_found_is_an_empty_list() -> None:
    assert coco_results(result_of(NOTHING)) == []


def test_results_without_masks_have_no_segmentation() -> None:
    assert coco_results(result_of(TWO_WITHOUT_MASKS, position=3)) == [
        {"image_id": 3, "category_id": 2, "bbox": [16.0, 8.25, 64.5, 63.75], "score": 0.998},
        {"image_id": 3, "category_id": 0, "bbox": [0.0, 0.0, 160.0, 80.0], "score": 0.75},
    ]


def test_segmentations_decode_to_the_masks() -> None:
    decoded = [
        pycocotools.mask.decode(result["segmentation"]) for result in coco_results(result_of(TWO))
    ]
    np.testing.assert_array_equal(decoded, dense_masks(TWO))


def test_width_and_height_are_rounded_once() -> None:
    found = detections_of((30, 30), [(0.0004, 1.0004, 10.0008, 20.0008)])
    [result] = coco_results(result_of(found))
    assert result["bbox"] == [0.0, 1.0, 10.0, 19.0]


@pytest.mark.parametrize("mask_encoding", ["rle", "polygon"])
def test_pycocotools_loads_them(mask_encoding: str) -> None:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 0, "height": 80, "width": 160}],
        "categories": [{"id": index} for index in range(3)],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(coco_results(result_of(TWO, mask_encoding=mask_encoding)))
    assert [truth_id["score"] for truth_id in loaded.anns.values()] == [0.998, 0.75]


def test_keypoints_are_flat_and_name_pixels_by_their_index() -> None:
    results = coco_results(result_of(TWO_OF_ALL))
    assert [result.pop("keypoints") for result in results] == [
        [19.623, 9.5, 0.912346, 79.0, 69.75, 0.04],
        [0.5, 1.5, 0.5, 159.0, 79.0, 1.0],
    ]
    assert results == coco_results(result_of(TWO))
