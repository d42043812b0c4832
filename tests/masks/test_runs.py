"""Runs of pasted masks, compared bit for bit with naive pasting."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from d2serve.masks import runs as runs_module
from d2serve.masks.paste import regions
from d2serve.masks.rle import encode_rles
from d2serve.masks.runs import Runs, paste_densely, paste_runs, without_pairs
from tests.masks.instances import (
    Instances,
    coco,
    paste_naively,
    random_boxes,
    random_instances,
    random_masks,
)


def assert_same(instances: Instances) -> None:
    expected = paste_naively(instances)
    runs = paste_runs(instances.masks, instances.boxes_xyxy, instances.size_hw)
    assert encode_rles(runs) == coco(expected)
    pasted = np.stack([region.full(instances.size_hw) for region in regions(runs)])
    np.testing.assert_array_equal(pasted, expected)


def test_ten_thousand_instances_equal_naive_pasting() -> None:
    for instances in random_instances(10_000):
        assert_same(instances)


def test_instances_include_difficult_ones() -> None:
    every = list(random_instances(10_000))
    boxes = np.concatenate([each.boxes_xyxy for each in every])
    sides = np.concatenate([np.tile(each.size_hw[::-1], (100, 2)) for each in every])
    spans = boxes[:, 2:] - boxes[:, :2]
    assert len(boxes) == 10_000
    assert (spans == 0).any(axis=1).sum() > 300
    assert ((boxes < 0) | (boxes > sides)).any(axis=1).sum() > 1000
    assert ((spans > 0) & (spans < 1)).any(axis=1).sum() > 1000
    assert (spans > 100).any(axis=1).sum() > 300
    areas = [mask.mean() for each in every[:20] for mask in paste_naively(each)]
    assert 0.05 < np.mean(areas) < 0.6
    assert np.count_nonzero(areas) > 1000


@pytest.mark.parametrize("size_hw", [(1080, 1920), (2500, 40), (40, 2500)], ids=str)
def test_large_images_equal_naive_pasting(size_hw: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    for side in (28, 14):
        masks = random_masks(generator, 12, side)
        assert_same(Instances(masks, random_boxes(generator, 12, size_hw), size_hw))


def test_masks_of_one_half_equal_naive_pasting() -> None:
    """An untrained head outputs 0.5 for every pixel; all are sampled, in several batches."""
    masks = np.full((3, 28, 28), 0.5, dtype=np.float32)
    boxes = np.array([(0, 0, 390, 300), (3.3, 5.7, 371.9, 222.2), (9, 9, 9, 50)], dtype=np.float32)
    assert_same(Instances(masks, boxes, (300, 400)))


@pytest.mark.parametrize("size_hw", [(300, 400), (70, 1500), (1500, 70)], ids=str)
def test_large_masks_of_one_half_are_sampled_densely(
    size_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = size_hw
    generator = np.random.default_rng(7)
    masks = np.full((4, 28, 28), 0.5, dtype=np.float32)
    masks[1] = generator.random((28, 28))
    masks[2, 3:9, 4:20] = generator.random((6, 16))
    masks[3, 5:7] = 0
    boxes = np.array(
        [
            (0, 0, width, height),
            (1, 2, width - 3, height - 4),
            (3.3, 1.7, width - 9.1, height - 2.2),
            (-30.5, -9.25, width + 20, height + 7),
        ],
        dtype=np.float32,
    )
    sampled = []

    def spy(*arguments: Any) -> npt.NDArray[np.int64]:
        sampled.append(arguments)
        return paste_densely(*arguments)

    monkeypatch.setattr(runs_module, "paste_densely", spy)
    assert_same(Instances(masks, boxes, size_hw))
    assert len(sampled) == 3


def test_no_instances() -> None:
    runs = paste_runs(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (30, 40))
    assert len(runs) == 0
    assert list(runs) == []
    assert encode_rles(runs) == []


def test_bounds_of_each_mask_ascend() -> None:
    masks = np.ones((3, 28, 28), dtype=np.float32)
    boxes = np.array([(1, 0, 3, 5), (0, 0, 0, 5), (0, 1, 2, 3)], dtype=np.float32)
    runs = paste_runs(masks, boxes, (5, 4))
    assert [bounds.tolist() for bounds in runs] == [[5, 15], [], [1, 3, 6, 8]]


def test_runs_of_two_masks_do_not_merge() -> None:
    masks = np.ones((2, 28, 28), dtype=np.float32)
    boxes = np.array([(0, 0, 4, 5), (0, 0, 4, 5)], dtype=np.float32)
    runs = paste_runs(masks, boxes, (5, 4))
    assert [bounds.tolist() for bounds in runs] == [[0, 20], [0, 20]]


def test_masks_pasted_in_several_parts_equal_naive_pasting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs_module, "MASKS_TOGETHER", 7)
    for instances in random_instances(600):
        assert_same(instances)


def test_nan_counts_as_unset() -> None:
    masks = np.random.default_rng(6).random((1, 28, 28), dtype=np.float32)
    masks[0, 10:15, 10:15] = np.nan
    boxes = np.array([(2, 1, 38, 29)], dtype=np.float32)
    runs = paste_runs(masks, boxes, (30, 40))
    assert encode_rles(runs) == encode_rles(paste_runs(np.nan_to_num(masks), boxes, (30, 40)))


@pytest.mark.parametrize("side", range(4))
def test_a_box_of_infinite_size_has_no_pixels(side: int) -> None:
    boxes = np.tile(np.array([(2, 1, 38, 29)], dtype=np.float32), (2, 1))
    boxes[1, side] = np.inf if side > 1 else -np.inf
    runs = paste_runs(np.ones((2, 28, 28), np.float32), boxes, (30, 40))
    assert [len(bounds) for bounds in runs] == [2 * 36, 0]


def test_changes_in_any_order_become_runs() -> None:
    """The numbers of 2x3 pixels start at 0, 7 and 14; at 9 and 15 the state changes twice."""
    changes = np.array([12, 3, 9, 8, 15, 1, 9, 15], dtype=np.int32)
    runs = Runs.of_changes(changes, 3, (2, 3))
    assert [bounds.tolist() for bounds in runs] == [[1, 3], [1, 5], []]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], []),
        ([4], [4]),
        ([4, 4], []),
        ([4, 4, 4], [4]),
        ([1, 4, 4, 4, 4, 7, 7, 9], [1, 9]),
        ([1, 1, 1, 2, 2, 3, 3, 3, 3, 3], [1, 3]),
    ],
)
def test_numbers_that_occur_an_even_number_of_times_vanish(
    numbers: list[int], expected: list[int]
) -> None:
    assert without_pairs(np.array(numbers, dtype=np.int64)).tolist() == expected
