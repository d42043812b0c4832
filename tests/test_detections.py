from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from handler.detections import Detections


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
    ],
)
def test_a_field_of_another_dtype_or_shape_is_refused(
    name: str, array: np.ndarray[Any, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=r"expected .* got") as raised:
        Detections(**{**fields_of(2), name: array})
    assert str(raised.value) == expected


def test_detections_cannot_be_changed() -> None:
    detections = Detections(**fields_of(1))
    with pytest.raises(FrozenInstanceError):
        detections.scores = np.ones(1, dtype=np.float32)  # type: ignore[misc]
