"""JSON formats of one image."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from pycocotools.coco import COCO

from d2serve.detections import Detections
from d2serve.messages import FORMATS as NAMES_OF_FORMATS
from d2serve.outputs.accept import JPEG
from d2serve.outputs.formats import (
    FORMATS,
    class_scores,
    coco_results,
    default_object,
    jumpstart_object,
    relative_rows,
)
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import segmentations
from d2serve.outputs.roboflow import roboflow_object
from d2serve.outputs.segment_maps import segment_maps
from tests.fakes import detections_of
from tests.outputs.results import (
    BROKEN,
    MODEL,
    NAMES,
    NO_DETECTIONS,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    dense_masks,
    result_of,
)

LIST_KEYS = ("labels", "boxes", "scores", "classes", "names", "masks", "prediction")


@pytest.mark.parametrize("mask_side", [None, 28], ids=["boxes-only", "with-masks"])
def test_no_detections_give_empty_lists(mask_side: int | None) -> None:
    content = default_object(result_of(detections_of((40, 30), [], mask_side=mask_side)))
    assert content == {
        **{key: [] for key in LIST_KEYS},
        "image": {"width": 30, "height": 40},
    }


def test_default_format_follows_the_contract() -> None:
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


def test_default_format_encodes_masks_as_polygons() -> None:
    content = default_object(result_of(TWO, mask_encoding="polygon"))
    assert content["masks"] == segmentations(TWO, "polygon")


def test_model_without_masks_has_an_empty_masks_list() -> None:
    content = default_object(result_of(TWO_WITHOUT_MASKS))
    assert (len(content["boxes"]), content["masks"]) == (2, [])


def test_class_without_a_name_is_an_error() -> None:
    with pytest.raises(IndexError):
        default_object(result_of(detections_of((9, 9), [(1, 1, 5, 5)], classes=[len(NAMES)])))


def test_default_format_includes_keypoints_and_maps() -> None:
    both = (replace(TWO_OF_ALL, surfaces=None), TWO)
    content, without = (default_object(result_of(found)) for found in both)
    added = ("mask_scores", "keypoints", "panoptic", "semantic")
    more = {key: content.pop(key) for key in added}
    assert content == without
    assert more == {
        "mask_scores": [0.5, -0.25],
        "keypoints": [
            [[20.123, 10.0, 0.912346], [79.5, 70.25, 0.04]],
            [[1.0, 2.0, 0.5], [159.5, 79.5, 1.0]],
        ],
        **segment_maps(result_of(TWO_OF_ALL)),
    }


def test_keypoints_of_no_detections_are_an_empty_list() -> None:
    nothing = replace(NO_DETECTIONS, keypoints=np.zeros((0, 17, 3), dtype=np.float32))
    assert default_object(result_of(nothing))["keypoints"] == []


def test_clarify_rows_of_no_detections_are_empty() -> None:
    assert relative_rows(result_of(NO_DETECTIONS)) == []


def test_clarify_rows_are_class_score_and_relative_box() -> None:
    assert json.dumps(relative_rows(result_of(TWO))) == json.dumps(
        [[2, 0.998, 0.1, 0.103125, 0.503125, 0.9], [0, 0.75, 0.0, 0.0, 1.0, 1.0]]
    )


@pytest.mark.parametrize(
    ("scores", "classes", "expected"),
    [
        pytest.param([], [], [0, 0, 0], id="no-detections"),
        pytest.param([0.9], [1], [0, 0.9, 0], id="one"),
        pytest.param([0.9, 0.5], [2, 0], [0.5, 0, 0.9], id="two-classes"),
        pytest.param([0.9, 0.8, 0.7], [1, 1, 1], [0, 0.9, 0], id="the-best-of-a-class"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [2, 0, 2, 0], [0.8, 0, 0.9], id="the-best-of-each"),
    ],
)
def test_clarify_scores_are_the_best_of_each_class(
    scores: list[float], classes: list[int], expected: list[float]
) -> None:
    boxes = [(1, 1, 5, 5)] * len(scores)
    assert class_scores(result_of(detections_of((9, 9), boxes, scores, classes))) == expected


def test_coco_results_of_no_detections_are_empty() -> None:
    assert coco_results(result_of(NO_DETECTIONS)) == []


def test_coco_results_without_masks_have_no_segmentation() -> None:
    assert coco_results(result_of(TWO_WITHOUT_MASKS, position=3)) == [
        {"image_id": 3, "category_id": 2, "bbox": [16.0, 8.25, 64.5, 63.75], "score": 0.998},
        {"image_id": 3, "category_id": 0, "bbox": [0.0, 0.0, 160.0, 80.0], "score": 0.75},
    ]


def test_coco_segmentations_decode_to_the_masks() -> None:
    decoded = [
        pycocotools.mask.decode(result["segmentation"]) for result in coco_results(result_of(TWO))
    ]
    np.testing.assert_array_equal(decoded, dense_masks(TWO))


def test_width_and_height_are_rounded_once() -> None:
    found = detections_of((30, 30), [(0.0004, 1.0004, 10.0008, 20.0008)])
    [result] = coco_results(result_of(found))
    assert result["bbox"] == [0.0, 1.0, 10.0, 19.0]


@pytest.mark.parametrize("mask_encoding", ["rle", "polygon"])
def test_pycocotools_loads_the_coco_results(mask_encoding: str) -> None:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 0, "height": 80, "width": 160}],
        "categories": [{"id": index} for index in range(3)],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(coco_results(result_of(TWO, mask_encoding=mask_encoding)))
    assert [truth_id["score"] for truth_id in loaded.anns.values()] == [0.998, 0.75]


def test_coco_keypoints_are_flat_pixel_indices() -> None:
    results = coco_results(result_of(replace(TWO_OF_ALL, surfaces=None)))
    assert [result.pop("keypoints") for result in results] == [
        [19.623, 9.5, 0.912346, 79.0, 69.75, 0.04],
        [0.5, 1.5, 0.5, 159.0, 79.0, 1.0],
    ]
    assert [result.pop("mask_score") for result in results] == [0.5, -0.25]
    assert results == coco_results(result_of(TWO))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            detections_of((9, 9), [], mask_side=None),
            {"normalized_boxes": [], "classes": [], "scores": []},
            id="no-detections",
        ),
        pytest.param(
            TWO_WITHOUT_MASKS,
            {
                "normalized_boxes": [[0.1, 0.103125, 0.503125, 0.9], [0, 0, 1, 1]],
                "classes": [2, 0],
                "scores": [0.998, 0.75],
            },
            id="two-detections",
        ),
    ],
)
def test_jumpstart_without_masks_has_four_keys(
    found: Detections, expected: dict[str, object]
) -> None:
    assert jumpstart_object(result_of(found)) == {**expected, "labels": list(NAMES)}


@pytest.mark.parametrize("mask_encoding", ["rle", "polygon"])
def test_jumpstart_masks_equal_those_of_other_formats(mask_encoding: str) -> None:
    content = jumpstart_object(result_of(TWO, mask_encoding=mask_encoding))
    assert content["masks"] == segmentations(TWO, mask_encoding)


def test_jumpstart_overlay_is_a_jpeg() -> None:
    result = result_of(TWO)
    body = base64.b64decode(jumpstart_object(result)["image_with_masks"], validate=True)
    assert body == overlay_body(result.required_pixels, TWO, MODEL, JPEG)


ERROR = BROKEN.body()


def test_every_format_option_is_implemented() -> None:
    assert tuple(FORMATS) == NAMES_OF_FORMATS


@pytest.mark.parametrize("name", ["default", "jumpstart"])
@pytest.mark.parametrize("entries", [[], [{"a": 1}, ERROR]], ids=["none", "several"])
def test_objects_are_joined_as_predictions(name: str, entries: list[Any]) -> None:
    assert FORMATS[name].join(entries) == {"predictions": entries}


@pytest.mark.parametrize("name", ["clarify", "clarify-scores", "roboflow"])
@pytest.mark.parametrize("entries", [[], [[1, 2], ERROR, []]], ids=["none", "several"])
def test_entries_of_clarify_and_roboflow_are_joined_as_a_list(
    name: str, entries: list[Any]
) -> None:
    assert FORMATS[name].join(entries) == entries


@pytest.mark.parametrize(
    ("entries", "joined"),
    [
        pytest.param([], [], id="none"),
        pytest.param([[], []], [], id="no-detections"),
        pytest.param([["a"], [], ["b", "c"]], ["a", "b", "c"], id="several"),
        pytest.param([["a"], ERROR], ["a", {"image_id": 1, **ERROR}], id="an-error"),
    ],
)
def test_coco_lists_are_concatenated(entries: list[Any], joined: list[Any]) -> None:
    assert FORMATS["coco"].join(entries) == joined


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("default", default_object),
        ("clarify", relative_rows),
        ("clarify-scores", class_scores),
        ("coco", coco_results),
        ("jumpstart", jumpstart_object),
        ("roboflow", roboflow_object),
    ],
)
def test_format_names_map_to_their_functions(name: str, entry: Any) -> None:
    assert FORMATS[name].entry is entry
