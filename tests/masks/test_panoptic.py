"""Panoptic maps of instances and stuff."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from d2serve.detections import Detections
from d2serve.masks.panoptic import Panoptic, Segment, combine, stuff_alone
from d2serve.masks.paste import paste_mask
from tests.fakes import detections_of

SIZE_HW = (10, 20)
LEFT, RIGHT = (0, 0, 10, 10), (10, 0, 20, 10)
LEFT_AND_ONE_MORE_COLUMN = (0, 0, 11, 10)
NO_STUFF = np.zeros(SIZE_HW, dtype=np.int32)


def full_masks(*boxes: tuple[float, ...], **what: Any) -> Detections:
    """Instances whose masks fill their boxes."""
    found = detections_of(SIZE_HW, boxes, **what)
    return replace(found, masks=np.ones((len(boxes), 28, 28), dtype=np.float32))


def combine_all(
    found: Detections,
    semantic: npt.NDArray[np.int32] = NO_STUFF,
    overlap_threshold: float = 0.5,
    stuff_area_limit: int = 1,
    score_threshold: float = 0.5,
) -> Panoptic:
    return combine(found, semantic, overlap_threshold, stuff_area_limit, score_threshold)


def test_empty_map() -> None:
    result = combine_all(full_masks())
    assert result.segments == ()
    assert result.ids.dtype == np.int32
    assert result.ids.shape == SIZE_HW
    assert not result.ids.any()


def test_things_are_numbered_before_stuff() -> None:
    semantic = np.full(SIZE_HW, 4, dtype=np.int32)
    semantic[5:] = 2
    result = combine_all(full_masks(RIGHT, scores=[0.75], classes=[3]), semantic)
    assert result.segments == (
        Segment(1, 3, is_thing=True, score=0.75),
        Segment(2, 2, is_thing=False),
        Segment(3, 4, is_thing=False),
    )
    assert (result.ids[:, 10:] == 1).all()
    assert (result.ids[5:, :10] == 2).all()
    assert (result.ids[:5, :10] == 3).all()


def test_stuff_class_zero_is_never_a_segment() -> None:
    result = combine_all(full_masks(LEFT), np.zeros(SIZE_HW, dtype=np.int32))
    assert [segment.is_thing for segment in result.segments] == [True]
    assert not result.ids[:, 10:].any()


def test_instance_with_the_higher_score_keeps_shared_pixels() -> None:
    result = combine_all(full_masks(LEFT, LEFT_AND_ONE_MORE_COLUMN), overlap_threshold=0.95)
    assert (result.ids[:, :10] == 1).all()
    assert (result.ids[:, 10] == 2).all()


@pytest.mark.parametrize(
    ("overlap_threshold", "count"), [(0.49, 1), (0.5, 2)], ids=["above", "equal"]
)
def test_instance_above_the_overlap_threshold_is_dropped(
    overlap_threshold: float, count: int
) -> None:
    half_overlapping = (0, 0, 20, 10)
    result = combine_all(full_masks(LEFT, half_overlapping), overlap_threshold=overlap_threshold)
    assert len(result.segments) == result.ids.max() == count


@pytest.mark.parametrize(
    ("score_threshold", "count"), [(0.75, 1), (0.76, 0)], ids=["equal", "below"]
)
def test_instances_below_the_score_threshold_are_dropped(
    score_threshold: float, count: int
) -> None:
    result = combine_all(full_masks(LEFT, scores=[0.75]), score_threshold=score_threshold)
    assert len(result.segments) == count


@pytest.mark.parametrize("limit", [100, 101], ids=["equal", "below"])
def test_stuff_below_the_area_limit_is_dropped(limit: int) -> None:
    semantic = np.full(SIZE_HW, 6, dtype=np.int32)
    result = combine_all(full_masks(LEFT), semantic, stuff_area_limit=limit)
    assert (result.ids[:, 10:] == (2 if limit == 100 else 0)).all()
    assert len(result.segments) == (2 if limit == 100 else 1)


def test_instance_with_an_empty_mask_is_not_a_segment() -> None:
    found = full_masks(LEFT)
    assert found.masks is not None
    found.masks[:] = 0
    assert combine_all(found, overlap_threshold=1.0).segments == ()


def test_instances_without_masks_are_an_error() -> None:
    with pytest.raises(ValueError, match="without masks cannot"):
        combine_all(detections_of(SIZE_HW, [LEFT], mask_side=None))


@pytest.mark.parametrize("overlap_threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stuff_area_limit", [0, 60])
def test_map_equals_that_of_full_masks(overlap_threshold: float, stuff_area_limit: int) -> None:
    for seed in range(20):
        found, semantic = random_scene(seed)
        result = combine_all(found, semantic, overlap_threshold, stuff_area_limit)
        expected = naive(found, semantic, overlap_threshold, stuff_area_limit)
        np.testing.assert_array_equal(result.ids, expected.ids)
        assert result.segments == expected.segments


def random_scene(seed: int) -> tuple[Detections, npt.NDArray[np.int32]]:
    generator = np.random.default_rng(seed)
    size_hw, count = (40, 60), 8
    corners = np.sort(generator.random((count, 2, 2)) * [60, 40], axis=1).reshape(count, 4).tolist()
    found = detections_of(
        size_hw, corners, np.linspace(0.9, 0.4, count).tolist(), [1, 0, 5, 5, 2, 2, 1, 9]
    )
    noises = [gaussian_filter(generator.standard_normal(size_hw), 5) for _ in range(5)]
    return found, np.argmax(noises, axis=0).astype(np.int32)


def naive(
    found: Detections,
    semantic: npt.NDArray[np.int32],
    overlap_threshold: float,
    stuff_area_limit: int,
) -> Panoptic:
    """Like Detectron2: with a mask of the whole image for every instance and class."""
    assert found.masks is not None
    ids = np.zeros_like(semantic)
    segments: list[Segment] = []
    for index in np.flatnonzero(found.scores >= 0.5):
        mask = paste_mask(found.masks[index], found.boxes_xyxy[index], found.size_hw).full(
            found.size_hw
        )
        taken = mask & (ids > 0)
        if mask.any() and taken.sum() / mask.sum() <= overlap_threshold:
            score = float(found.scores[index])
            segments.append(Segment(len(segments) + 1, int(found.classes[index]), True, score))
            ids[mask & ~taken] = len(segments)
    for label in sorted(set(semantic.ravel().tolist()) - {0}):
        free = (semantic == label) & (ids == 0)
        if free.sum() >= stuff_area_limit:
            segments.append(Segment(len(segments) + 1, label, False))
            ids[free] = len(segments)
    return Panoptic(ids, tuple(segments))


def test_stuff_alone_has_a_segment_for_each_class() -> None:
    semantic = np.array([[0, 0, 7], [2, 7, 7]], dtype=np.int32)
    result = stuff_alone(semantic)
    assert result.ids.dtype == np.int32
    np.testing.assert_array_equal(result.ids, [[1, 1, 8], [3, 8, 8]])
    assert result.segments == (
        Segment(1, 0, is_thing=False),
        Segment(3, 2, is_thing=False),
        Segment(8, 7, is_thing=False),
    )
