from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from d2serve.detections import Detections
from d2serve.masks.panoptic import Panoptic
from tests.fakes import detections_of


def fields_of(count: int) -> dict[str, Any]:
    return {
        "size_hw": (10, 20),
        "boxes_xyxy": np.zeros((count, 4), dtype=np.float32),
        "scores": np.zeros(count, dtype=np.float32),
        "classes": np.zeros(count, dtype=np.int64),
        "masks": np.zeros((count, 28, 28), dtype=np.float32),
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_length_is_the_number_of_instances(count: int) -> None:
    assert len(Detections(**fields_of(count))) == count


def test_masks_may_be_missing() -> None:
    assert Detections(**{**fields_of(2), "masks": None}).masks is None


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        pytest.param(
            "boxes_xyxy",
            np.zeros((2, 4), dtype=np.float64),
            "boxes_xyxy is float64[2, 4]; expected float32[2, 4]",
            id="boxes-of-double-precision",
        ),
        pytest.param(
            "boxes_xyxy",
            np.zeros((3, 4), dtype=np.float32),
            "boxes_xyxy is float32[3, 4]; expected float32[2, 4]",
            id="a-box-too-many",
        ),
        pytest.param(
            "boxes_xyxy",
            np.zeros((2, 5), dtype=np.float32),
            "boxes_xyxy is float32[2, 5]; expected float32[2, 4]",
            id="boxes-of-five-numbers",
        ),
        pytest.param(
            "scores",
            np.zeros((2, 1), dtype=np.float32),
            "scores is float32[2, 1]; expected float32[2]",
            id="scores-as-column",
        ),
        pytest.param(
            "classes",
            np.zeros(2, dtype=np.int32),
            "classes is int32[2]; expected int64[2]",
            id="classes-of-32-bits",
        ),
        pytest.param(
            "classes",
            np.zeros(1, dtype=np.int64),
            "classes is int64[1]; expected int64[2]",
            id="a-class-too-few",
        ),
        pytest.param(
            "masks",
            np.zeros((2, 28, 14), dtype=np.float32),
            "masks is float32[2, 28, 14]; expected float32[2, 14, 14]",
            id="masks-not-square",
        ),
        pytest.param(
            "masks",
            np.zeros((1, 28, 28), dtype=np.float32),
            "masks is float32[1, 28, 28]; expected float32[2, 28, 28]",
            id="a-mask-too-few",
        ),
        pytest.param(
            "masks",
            np.zeros((2, 28, 28), dtype=np.bool_),
            "masks is bool[2, 28, 28]; expected float32[2, 28, 28]",
            id="masks-already-set-or-not",
        ),
        pytest.param(
            "keypoints",
            np.zeros((2, 17, 2), dtype=np.float32),
            "keypoints is float32[2, 17, 2]; expected float32[2, 17, 3]",
            id="keypoints-without-scores",
        ),
        pytest.param(
            "semantic",
            np.zeros((20, 10), dtype=np.int32),
            "semantic is int32[20, 10]; expected int32[10, 20]",
            id="semantic-of-another-size",
        ),
        pytest.param(
            "panoptic",
            Panoptic(np.zeros((10, 20), dtype=np.uint8), ()),
            "panoptic.ids is uint8[10, 20]; expected int32[10, 20]",
            id="segments-of-8-bits",
        ),
    ],
)
def test_wrong_dtype_or_shape_is_rejected(name: str, array: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r" is .*; expected ") as raised:
        Detections(**{**fields_of(2), name: array})
    assert str(raised.value) == expected


def test_a_list_instead_of_an_array_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"boxes_xyxy is a list; expected float32\[2, 4\]"):
        Detections(**{**fields_of(2), "boxes_xyxy": [[0, 0, 1, 1]] * 2})


def test_wrong_number_of_class_names_is_rejected() -> None:
    with pytest.raises(ValueError, match="class_names has 1 names; expected 2"):
        Detections(**{**fields_of(2), "class_names": ("cat",)})


def test_detections_are_immutable() -> None:
    detections = Detections(**fields_of(1))
    with pytest.raises(FrozenInstanceError):
        detections.scores = np.ones(1, dtype=np.float32)  # type: ignore[misc]


@pytest.mark.parametrize("mask_side", [None, 28], ids=["boxes-only", "with-masks"])
@pytest.mark.parametrize(
    "indices",
    [
        pytest.param([], id="none"),
        pytest.param([1], id="one"),
        pytest.param([0, 2], id="two-apart"),
        pytest.param([0, 1, 2], id="all"),
    ],
)
def test_select_keeps_all_fields_of_the_instances(
    indices: list[int], mask_side: int | None
) -> None:
    boxes = [(1, 2, 3, 4), (5, 6, 7, 8), (2, 2, 9, 9)]
    found = replace(
        detections_of((10, 20), boxes, classes=[3, 1, 2], mask_side=mask_side),
        mask_scores=np.array([0.5, 0.25, -0.125], np.float32),
        keypoints=np.arange(3 * 17 * 3, dtype=np.float32).reshape(3, 17, 3),
        semantic=np.ones((10, 20), np.int32),
        class_names=("cat", "dog", "cow"),
    )
    chosen = found.select(np.array(indices, dtype=np.intp))
    assert (len(chosen), chosen.size_hw) == (len(indices), (10, 20))
    for name in ("boxes_xyxy", "scores", "classes", "masks", "mask_scores", "keypoints"):
        before, after = getattr(found, name), getattr(chosen, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(after, before[indices])
    assert chosen.class_names == tuple(found.class_names[index] for index in indices)
    assert chosen.semantic is found.semantic


def test_masks_are_dense_rle_or_polygons() -> None:
    found = detections_of((30, 40), [(2, 3, 20, 25), (0, 0, 40, 30)])
    dense = found.masks_dense()
    assert dense.dtype == np.bool_
    assert dense.shape == (2, 30, 40)
    decoded = [pycocotools.mask.decode(rle) for rle in found.masks_rle()]
    np.testing.assert_array_equal(decoded, dense)
    regions = [region.full(found.size_hw) for region in found.mask_regions()]
    np.testing.assert_array_equal(regions, dense)
    for mask, polygons in zip(dense, found.masks_polygons(), strict=True):
        outline = pycocotools.mask.frPyObjects(list(polygons), 30, 40)
        filled = pycocotools.mask.decode(pycocotools.mask.merge(outline))
        assert (filled[mask] == 1).all()


def test_masks_of_no_detections_are_empty() -> None:
    found = detections_of((30, 40), [])
    assert found.masks_dense().shape == (0, 30, 40)
    assert found.masks_rle() == []
    assert found.masks_polygons() == []
    assert found.to_coco() == []


@pytest.mark.parametrize("name", ["mask_regions", "masks_dense", "masks_rle", "masks_polygons"])
def test_masks_of_a_model_without_masks_are_an_error(name: str) -> None:
    found = detections_of((30, 40), [(2, 3, 20, 25)], mask_side=None)
    with pytest.raises(ValueError, match="masks is None"):
        getattr(found, name)()


def test_coco_results_have_the_given_image_and_category_ids() -> None:
    found = detections_of((30, 40), [(2, 3, 20, 25), (0, 0, 40, 30)], classes=[1, 0])
    results = found.to_coco(image_id="a.jpg", category_ids=[18, 44])
    assert [result["image_id"] for result in results] == ["a.jpg", "a.jpg"]
    assert [result["category_id"] for result in results] == [44, 18]
    assert [result["bbox"] for result in results] == [[2, 3, 18, 22], [0, 0, 40, 30]]
    assert [result["segmentation"] for result in results] == found.masks_rle()
    polygons = found.to_coco(mask_format="polygon")
    assert [result["segmentation"] for result in polygons] == found.masks_polygons()


def test_unknown_mask_format_is_rejected() -> None:
    found = detections_of((30, 40), [(2, 3, 20, 25)])
    with pytest.raises(ValueError, match="mask_format is 'dense'; use rle or polygon"):
        found.to_coco(mask_format="dense")


TWO = detections_of((10, 20), [(1, 2, 3, 4), (5, 6, 7, 8)], classes=[3, 1])


def test_select_takes_a_mask() -> None:
    named = replace(TWO, class_names=("cat", "dog"))
    chosen = named.select(named.classes == 1)
    assert (chosen.class_names, chosen.classes.tolist()) == (("dog",), [1])
    assert named.select([True, True]).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([True], r"the mask is bool\[1\]; expected bool\[2\]"),
        ([2], r"indices is \[2\]; expected ascending, 0 to 1"),
        ([-1], r"indices is \[-1\]"),
        ([1, 0], r"indices is \[1, 0\]"),
        ([0, 0], r"indices is \[0, 0\]"),
        ([0.5], r"indices is float64\[1\]; expected integers\[K\] or bool\[2\]"),
        (1, r"indices is int64\[\]"),
    ],
)
def test_select_rejects_other_indices(indices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TWO.select(indices)
