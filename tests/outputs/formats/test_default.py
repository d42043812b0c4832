from dataclasses import replace

import numpy as np
import pycocotools.mask
import pytest

from d2serve.outputs.formats import default_object
from d2serve.outputs.result import segmentations
from d2serve.outputs.segment_maps import segment_maps
from tests.fakes import detections_of
from tests.outputs.results import (
    NAMES,
    NOTHING,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    dense_masks,
    result_of,
)

LIST_KEYS = ("labels", "boxes", "scores", "classes", "names", "masks", "prediction")


@pytest.mark.parametrize("mask_side", [None, 28], ids=["boxes-only", "with-masks"])
def test_nothing_found_leaves_every_key_with_an_empty_list(mask_side: int | None) -> None:
    content = default_object(result_of(detections_of((40, 30), [], mask_side=mask_side)))
    assert content == {
        **{key: [] for key in LIST_KEYS},
        "image": {"width": 30, "height": 40},
    }


def test_detections_are_written_as_the_contract_says() -> None:
    content = default_object(result_of(TWO))
    masks = content.pop("masks")
    assert content == {
        "labels": ["horse 100%", "person 75%"],
        "boxes": [[16.0, 8.25, 80.5, 72.0], [0.0, 0.0, 160.0, 80.0]],
        "scores": [0.998, 0.75],
        "classes": [2, 0],
        "names": ["horse", "person"],
        "prediction": [[2, 0.998, 0.1, 0.103125, 0.503125, 0.9], [0, 0.75, 0, 0, 1, 1]],
        "image": {"width": 160, "height": 80},
    }
    decoded = [pycocotools.mask.decode(mask) for mask in masks]
    np.testing.assert_array_equal(decoded, dense_masks(TWO))


def test_masks_may_be_polygons() -> None:
    content = default_object(result_of(TWO, mask_encoding="polygon"))
    assert content["masks"] == segmentations(TWO, "polygon")


def test_a_model_without_masks_gives_an_empty_list_of_masks() -> None:
    content = default_object(result_of(TWO_WITHOUT_MASKS))
    assert (len(content["boxes"]), content["masks"]) == (2, [])


def test_detections_of_more_classes_than_names_are_not_answered_wrongly() -> None:
    with pytest.raises(IndexError):
        default_object(result_of(detections_of((9, 9), [(1, 1, 5, 5)], classes=[len(NAMES)])))


def test_what_else_the_model_has_comes_beside_the_instances() -> None:
    content, without = (default_object(result_of(found)) for found in (TWO_OF_ALL, TWO))
    more = {key: content.pop(key) for key in ("keypoints", "panoptic", "semantic")}
    assert content == without
    assert more == {
        "keypoints": [
            [[20.123, 10.0, 0.912346], [79.5, 70.25, 0.04]],
            [[1.0, 2.0, 0.5], [159.5, 79.5, 1.0]],
        ],
        **segment_maps(result_of(TWO_OF_ALL)),
    }


def test_a_model_with_keypoints_that_found_nothing_gives_an_empty_list_of_them() -> None:
    nothing = replace(NOTHING, keypoints=np.zeros((0, 17, 3), dtype=np.float32))
    assert default_object(result_of(nothing))["keypoints"] == []
