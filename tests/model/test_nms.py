"""Suppression of several groups at once gives what each group gives alone."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from d2serve.model.nms import (
    PAIRWISE_VALUES,
    Unsorted,
    best_of_images,
    grouped_nms,
    nms_in_parallel,
    nms_of_levels,
)

THRESHOLD = 0.5


def boxes(*shape: int, seed: int = 0) -> Tensor:
    """Float32[*shape, 4]: many of them overlap."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 2, generator=random) * 100
    sides = torch.rand(*shape, 2, generator=random) * 60 + 1
    return torch.cat((corners, corners + sides), dim=-1)


def kept_alone(group: Tensor) -> list[bool]:
    kept = set(nms(group, torch.arange(len(group), 0, -1.0), THRESHOLD).tolist())
    return [index in kept for index in range(len(group))]


@pytest.mark.parametrize("count", [1, 60, 300])
def test_in_parallel_the_boxes_stay_that_stay_in_turn(count: int) -> None:
    groups = boxes(6, count, seed=count)
    found = nms_in_parallel(groups, THRESHOLD).tolist()
    assert found == [kept_alone(group) for group in groups]
    assert count == 1 or 0 < sum(map(sum, found)) < 6 * count


def test_a_long_chain_of_suppressions_is_followed_to_its_end() -> None:
    left = torch.arange(40.0) * 3
    chain = torch.stack((left, torch.zeros(40), left + 10, torch.full((40,), 10.0)), dim=1)
    assert nms_in_parallel(chain[None], THRESHOLD)[0].tolist() == [True, False] * 20


def test_an_empty_box_suppresses_none_and_stays() -> None:
    group = boxes(20)
    padded = torch.cat((torch.zeros(3, 4), group, torch.zeros(2, 4)))
    expected = [True] * 3 + kept_alone(group) + [True] * 2
    assert nms_in_parallel(padded[None], THRESHOLD)[0].tolist() == expected
    assert nms_of_levels([padded[None]], THRESHOLD)[0][0].tolist() == expected


def test_levels_of_all_images_are_as_each_alone() -> None:
    levels = [boxes(3, 80, seed=1), boxes(3, 25, seed=2)]
    for level, kept in zip(levels, nms_of_levels(levels, THRESHOLD), strict=True):
        assert kept.tolist() == [kept_alone(group) for group in level]


@pytest.mark.parametrize("count", [0, 1, 500, 1200])
def test_groups_do_not_touch_each_other(count: int) -> None:
    assert count != 1200 or count * 4 > PAIRWISE_VALUES["cpu"]
    random = torch.Generator().manual_seed(3)
    each, scores = boxes(count, seed=3) - 40, torch.rand(count, generator=random)
    groups = torch.randint(0, 2000, (count,), generator=random) % 9 * 220
    kept = grouped_nms(each, scores, groups, THRESHOLD)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    alone = [
        chosen[nms(each[chosen], scores[chosen], THRESHOLD)]
        for group in groups.unique()
        for chosen in [torch.where(groups == group)[0]]
    ]
    expected = torch.cat([groups[:0], *alone])
    assert sorted(kept.tolist()) == sorted(expected.tolist())
    assert count < 2 or 0 < len(kept) < count


def test_the_best_of_several_images_are_those_of_each_alone() -> None:
    random = torch.Generator().manual_seed(4)
    found = Unsorted(
        boxes(600, seed=4),
        torch.rand(600, generator=random),
        torch.randint(0, 3, (600,), generator=random),
        torch.randint(0, 4, (600,), generator=random),
    )
    together = best_of_images(found, 5, THRESHOLD, 20).by_image()
    assert [len(image) for image in together] == [20, 20, 20, 20, 0]
    for index, image in enumerate(together):
        own = found.images == index
        alone = best_of_images(
            Unsorted(
                found.boxes[own], found.scores[own], found.classes[own], found.images[own] - index
            ),
            1,
            THRESHOLD,
            20,
        )
        assert torch.equal(image.boxes, alone.boxes)
        assert torch.equal(image.scores, alone.scores)
        assert torch.equal(image.classes, alone.classes)
