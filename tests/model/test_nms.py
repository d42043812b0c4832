"""Batched NMS equals NMS of each group."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from d2serve.model import nms as module
from d2serve.model.nms import (
    MAX_BOXES_CPU,
    ScoredBoxes,
    class_wise_nms,
    class_wise_nms_cpu,
    class_wise_nms_gpu,
    nms_per_level,
    nms_per_level_cpu,
    nms_per_level_gpu,
    select_best,
    select_best_cpu,
    select_best_gpu,
)
from d2serve.model.parallel_nms import parallel_nms

THRESHOLD = 0.5
# Of 900 boxes of four images, as `scored_boxes` draws them.
IMAGE_SIZES = [206, 222, 233, 239]


def boxes(*shape: int, seed: int = 0) -> Tensor:
    """Float32[*shape, 4]; many of them overlap."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 2, generator=random) * 100
    sides = torch.rand(*shape, 2, generator=random) * 60 + 1
    return torch.cat((corners, corners + sides), dim=-1)


def scored_boxes(count: int, classes: int, images: int, seed: int) -> ScoredBoxes:
    random = torch.Generator().manual_seed(seed)
    return ScoredBoxes(
        boxes(count, seed=seed),
        # Without ties, whose order is undefined.
        torch.randperm(count, generator=random) / count,
        torch.randint(0, classes, (count,), generator=random),
        torch.randint(0, images, (count,), generator=random),
    )


def on_device(candidates: ScoredBoxes, device: torch.device) -> ScoredBoxes:
    return ScoredBoxes(
        candidates.boxes.to(device),
        candidates.scores.to(device),
        candidates.classes.to(device),
        candidates.images.to(device),
    )


def kept_separately(group: Tensor) -> list[bool]:
    kept = set(nms(group, torch.arange(len(group), 0, -1.0), THRESHOLD).tolist())
    return [index in kept for index in range(len(group))]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of boxes of all calls of torchvision's NMS."""
    counts = []

    def counted(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        counts.append(len(boxes))
        return nms(boxes, scores, threshold)

    monkeypatch.setattr(module, "NMS", counted)
    return counts


@pytest.mark.parametrize("count", [1, 60, 300])
def test_parallel_nms_equals_sequential_nms(count: int) -> None:
    groups = boxes(6, count, seed=count)
    found = parallel_nms(groups, THRESHOLD).tolist()
    assert found == [kept_separately(group) for group in groups]
    assert count == 1 or 0 < sum(map(sum, found)) < 6 * count


def test_parallel_nms_follows_a_long_chain_of_suppressions_to_its_end() -> None:
    left = torch.arange(40.0) * 3
    chain = torch.stack((left, torch.zeros(40), left + 10, torch.full((40,), 10.0)), dim=1)
    assert parallel_nms(chain[None], THRESHOLD)[0].tolist() == [True, False] * 20


def test_an_empty_box_stays_and_suppresses_no_other() -> None:
    group = boxes(20)
    padded = torch.cat((torch.zeros(3, 4), group, torch.zeros(2, 4)))
    expected = [True] * 3 + kept_separately(group) + [True] * 2
    assert parallel_nms(padded[None], THRESHOLD)[0].tolist() == expected
    assert nms_per_level([padded[None]], THRESHOLD)[0][0].tolist() == expected


def test_levels_and_images_do_not_affect_each_other() -> None:
    levels = [boxes(3, 80, seed=1), boxes(3, 25, seed=2)]
    for level, kept in zip(levels, nms_per_level(levels, THRESHOLD), strict=True):
        assert kept.tolist() == [kept_separately(group) for group in level]


@pytest.mark.parametrize("count", [0, 1, 500, 1200])
def test_groups_do_not_affect_each_other(count: int) -> None:
    assert count != 1200 or count > MAX_BOXES_CPU
    random = torch.Generator().manual_seed(3)
    each, scores = boxes(count, seed=3) - 40, torch.rand(count, generator=random)
    groups = torch.randint(0, 2000, (count,), generator=random) % 9 * 220
    candidates = ScoredBoxes(each, scores, groups, torch.zeros_like(groups))
    kept = class_wise_nms(candidates, 1, THRESHOLD)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    alone = [
        chosen[nms(each[chosen], scores[chosen], THRESHOLD)]
        for group in groups.unique()
        for chosen in [torch.where(groups == group)[0]]
    ]
    expected = torch.cat([groups[:0], *alone])
    assert sorted(kept.tolist()) == sorted(expected.tolist())
    assert count < 2 or 0 < len(kept) < count


@pytest.mark.parametrize(
    ("max_boxes", "max_image_boxes", "expected_calls"),
    [
        pytest.param(900, 900, 1, id="one call"),
        pytest.param(899, 900, 4, id="a call per image"),
        pytest.param(899, 221, 7 * 3 + 1, id="three large images group by group"),
        pytest.param(899, 0, 7 * 4, id="group by group"),
    ],
)
def test_a_gpu_and_a_cpu_keep_the_same_boxes(
    max_boxes: int,
    max_image_boxes: int,
    expected_calls: int,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BOXES_GPU", max_boxes)
    monkeypatch.setattr(module, "MAX_IMAGE_BOXES_GPU", max_image_boxes)
    candidates = scored_boxes(900, classes=7, images=4, seed=5)
    assert torch.bincount(candidates.images).sort()[0].tolist() == IMAGE_SIZES
    # The last image has no boxes.
    kept = class_wise_nms_gpu(candidates, 5, THRESHOLD)
    assert len(calls) == expected_calls
    assert torch.equal(kept, class_wise_nms_cpu(candidates, 5, THRESHOLD))
    assert candidates.images[kept].tolist() == sorted(candidates.images[kept].tolist())
    assert 0 < len(kept) < 900


def test_a_gpu_needs_one_call_per_image_for_a_large_batch(calls: list[int]) -> None:
    candidates = scored_boxes(25_001, classes=80, images=8, seed=6)
    kept = class_wise_nms_gpu(candidates, 8, THRESHOLD)
    assert len(calls) == 8
    # The CPU processes each class of each image separately.
    assert torch.equal(kept, class_wise_nms_cpu(candidates, 8, THRESHOLD))
    assert len(calls) == 8 + 8 * 80


def test_a_gpu_call_compares_at_most_the_boxes_of_the_limit(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BOXES_GPU", 300)
    monkeypatch.setattr(module, "MAX_IMAGE_BOXES_GPU", 400)
    candidates = scored_boxes(3_000, classes=20, images=3, seed=7)
    class_wise_nms_gpu(candidates, 3, THRESHOLD)
    assert len(calls) == 60
    assert max(calls) <= 400


def test_the_best_of_several_images_are_those_of_each_alone() -> None:
    found = scored_boxes(600, classes=3, images=4, seed=4)
    together = select_best(found, 5, THRESHOLD, 20).by_image()
    assert [len(image) for image in together] == [20, 20, 20, 20, 0]
    for index, image in enumerate(together):
        own = found.images == index
        alone = select_best(
            ScoredBoxes(
                found.boxes[own], found.scores[own], found.classes[own], found.images[own] - index
            ),
            1,
            THRESHOLD,
            20,
        )
        assert torch.equal(image.boxes, alone.boxes)
        assert torch.equal(image.scores, alone.scores)
        assert torch.equal(image.classes, alone.classes)


@pytest.mark.parametrize("suppress", [nms_per_level_cpu, nms_per_level_gpu])
def test_levels_without_boxes(suppress: Callable[[Sequence[Tensor], float], list[Tensor]]) -> None:
    kept = suppress([torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)], 0.5)
    assert [tuple(mask.shape) for mask in kept] == [(2, 0), (2, 0)]


@pytest.mark.parametrize(
    ("count", "classes", "limit", "falls_back"),
    [
        pytest.param(900, 80, 100, False, id="few-candidates"),
        pytest.param(6_000, 80, 100, False, id="the-best-suffice"),
        pytest.param(6_000, 1, 400, True, id="the-best-leave-too-few"),
        pytest.param(6_000, 80, -3, True, id="a-negative-limit"),
        pytest.param(0, 80, 100, True, id="none"),
        pytest.param(3, 80, 100, False, id="images-without-any"),
    ],
)
def test_the_best_boxes_by_a_gpu_equal_those_by_a_cpu(
    count: int, classes: int, limit: int, falls_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = scored_boxes(count, classes=classes, images=4, seed=5)
    expected = select_best_cpu(candidates, 4, THRESHOLD, limit)
    suppressed_all = []

    def counted(*arguments: Any) -> Any:
        suppressed_all.append(arguments)
        return select_best_cpu(*arguments)

    monkeypatch.setattr(module, "select_best_cpu", counted)
    found = select_best_gpu(candidates, 4, THRESHOLD, limit)
    assert bool(suppressed_all) == falls_back
    assert found.counts == expected.counts
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.classes, expected.classes)
