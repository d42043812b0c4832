from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from d2serve.detections import Detections, Panoptic
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
def test_the_length_is_the_number_of_instances(count: int) -> None:
    assert len(Detections(**fields_of(count))) == count


def test_masks_may_be_missing() -> None:
    assert Detections(**{**fields_of(2), "masks": None}).masks is None


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        pytest.param(
            "boxes_xyxy",
            np.zeros((2, 4), dtype=np.float64),
            "boxes_xyxy: expected float32[2, 4], got float64[2, 4]",
            id="boxes-of-double-precision",
        ),
        pytest.param(
            "boxes_xyxy",
            np.zeros((3, 4), dtype=np.float32),
            "boxes_xyxy: expected float32[2, 4], got float32[3, 4]",
            id="a-box-too-many",
        ),
        pytest.param(
            "boxes_xyxy",
            np.zeros((2, 5), dtype=np.float32),
            "boxes_xyxy: expected float32[2, 4], got float32[2, 5]",
            id="boxes-of-five-numbers",
        ),
        pytest.param(
            "scores",
            np.zeros((2, 1), dtype=np.float32),
            "scores: expected float32[2], got float32[2, 1]",
            id="scores-as-column",
        ),
        pytest.param(
            "classes",
            np.zeros(2, dtype=np.int32),
            "classes: expected int64[2], got int32[2]",
            id="classes-of-32-bits",
        ),
        pytest.param(
            "classes",
            np.zeros(1, dtype=np.int64),
            "classes: expected int64[2], got int64[1]",
            id="a-class-too-few",
        ),
        pytest.param(
            "masks",
            np.zeros((2, 28, 14), dtype=np.float32),
            "masks: expected float32[2, 14, 14], got float32[2, 28, 14]",
            id="masks-not-square",
        ),
        pytest.param(
            "masks",
            np.zeros((1, 28, 28), dtype=np.float32),
            "masks: expected float32[2, 28, 28], got float32[1, 28, 28]",
            id="a-mask-too-few",
        ),
        pytest.param(
            "masks",
            np.zeros((2, 28, 28), dtype=np.bool_),
            "masks: expected float32[2, 28, 28], got bool[2, 28, 28]",
            id="masks-already-set-or-not",
        ),
        pytest.param(
            "keypoints",
            np.zeros((2, 17, 2), dtype=np.float32),
            "keypoints: expected float32[2, 17, 3], got float32[2, 17, 2]",
            id="keypoints-without-scores",
        ),
        pytest.param(
            "semantic",
            np.zeros((20, 10), dtype=np.int32),
            "semantic: expected int32[10, 20], got int32[20, 10]",
            id="semantic-of-another-size",
        ),
        pytest.param(
            "panoptic",
            Panoptic(np.zeros((10, 20), dtype=np.uint8), ()),
            "panoptic.ids: expected int32[10, 20], got uint8[10, 20]",
            id="segments-of-8-bits",
        ),
    ],
)
def test_a_field_of_another_dtype_or_shape_is_refused(name: str, array: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* got") as raised:
        Detections(**{**fields_of(2), name: array})
    assert str(raised.value) == expected


def test_detections_cannot_be_changed() -> None:
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
def test_selected_instances_keep_all_that_belongs_to_them(
    indices: list[int], mask_side: int | None
) -> None:
    boxes = [(1, 2, 3, 4), (5, 6, 7, 8), (2, 2, 9, 9)]
    found = replace(
        detections_of((10, 20), boxes, classes=[3, 1, 2], mask_side=mask_side),
        keypoints=np.arange(3 * 17 * 3, dtype=np.float32).reshape(3, 17, 3),
        semantic=np.ones((10, 20), np.int32),
    )
    chosen = found.select(np.array(indices, dtype=np.intp))
    assert (len(chosen), chosen.size_hw) == (len(indices), (10, 20))
    for name in ("boxes_xyxy", "scores", "classes", "masks", "keypoints"):
        before, after = getattr(found, name), getattr(chosen, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(after, before[indices])
    assert chosen.semantic is found.semantic
