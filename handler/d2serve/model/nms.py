"""Non-maximum suppression of several groups of boxes at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.structures import Instances
from d2serve.torchvision_ops import load_operators

nms = load_operators("_C", "torchvision", ["nms"]).nms
# Up to here one product of all pairs is quicker than a loop over the groups; torchvision's choice.
PAIRWISE_VALUES = {"cpu": 4_000, "cuda": 100_000}
# Pairs of boxes that are compared at once on a GPU, which bounds memory.
PAIRS_AT_ONCE = 1 << 23
# How often `_fixed_point` steps before it asks the GPU whether anything still changes.
STEPS_AT_ONCE = 8


def grouped_nms(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Int64[K]: which boxes stay, best first, when those of a group suppress each other.

    A group's answer is the same whatever other groups there are: they are moved apart in float64,
    where that rounds nothing away.

    Args:
        boxes_xyxy: Float32[N, 4].
        scores: Float32[N].
        groups: Int64[N].
        threshold: the IoU above which the lower score goes.
    """
    if boxes_xyxy.numel() > PAIRWISE_VALUES.get(boxes_xyxy.device.type, 0):
        return _group_by_group(boxes_xyxy, scores, groups, threshold)
    if len(boxes_xyxy) == 0:
        return groups
    exact = boxes_xyxy.double()
    span = exact.max() - exact.min() + 1
    return nms(exact + (groups * span)[:, None], scores.double(), threshold)


def _group_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        (own,) = torch.where(groups == group)
        kept[own[nms(boxes[own], scores[own], threshold)]] = True
    (indices,) = torch.where(kept)
    return indices[scores[indices].argsort(descending=True)]


def nms_of_levels(levels: Sequence[Tensor], threshold: float) -> list[Tensor]:
    """Which boxes stay when those of one image and one level suppress each other.

    Args:
        levels: each Float32[N, K, 4] xyxy of N images, best first. An empty box suppresses none
            and stays.
        threshold: the IoU above which the later one goes.

    Returns:
        for each level Bool[N, K].
    """
    if levels[0].device.type == "cpu":
        return [torch.stack([_in_turn(boxes, threshold) for boxes in level]) for level in levels]
    return pad_and_suppress(levels, threshold)


def pad_and_suppress(levels: Sequence[Tensor], threshold: float) -> list[Tensor]:
    """`nms_of_levels` in the way that a GPU takes: all levels together."""
    most = max(level.shape[1] for level in levels)
    padded = torch.cat([F.pad(level, (0, 0, 0, most - level.shape[1])) for level in levels])
    kept = nms_in_parallel(padded, threshold).view(len(levels), -1, most)
    return [mask[:, : level.shape[1]] for mask, level in zip(kept, levels, strict=True)]


def nms_in_parallel(boxes_xyxy: Tensor, threshold: float) -> Tensor:
    """Bool[G, K] of Float32[G, K, 4], best first: which boxes stay in each of G groups.

    Every box is suppressed by the better ones that stay. Taken as a step from "all stay", that
    reaches what going through the boxes in turn gives, after as many steps as the longest chain
    of suppressions (Cluster-NMS, Zheng et al. 2021).
    """
    together = max(1, PAIRS_AT_ONCE // boxes_xyxy.shape[1] ** 2)
    suppresses = torch.cat([_overlaps(part) > threshold for part in boxes_xyxy.split(together)])
    return _fixed_point(suppresses.triu_(diagonal=1))


def _fixed_point(suppresses: Tensor) -> Tensor:
    """Of Bool[G, K, K], whether the first index suppresses the second."""
    kept = torch.ones(suppresses.shape[:2], dtype=torch.bool, device=suppresses.device)
    while True:
        for _ in range(STEPS_AT_ONCE):
            before, kept = kept, ~(suppresses & kept[:, :, None]).any(dim=1)
        if torch.equal(before, kept):
            return kept


def _overlaps(boxes: Tensor) -> Tensor:
    """Float32[G, K, K] IoU of Float32[G, K, 4], rounded as torchvision rounds it; NaN of two
    empty boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    areas = (x2 - x1) * (y2 - y1)
    width = _shared(x1, x2)
    intersections = width.mul_(_shared(y1, y2))
    return intersections / (areas[:, :, None] + areas[:, None] - intersections)


def _shared(starts: Tensor, ends: Tensor) -> Tensor:
    """Float32[G, K, K]: how long Float32[G, K] stretches lie in each other."""
    end = torch.minimum(ends[:, :, None], ends[:, None])
    return end.sub_(torch.maximum(starts[:, :, None], starts[:, None])).clamp_(min=0)


def _in_turn(boxes: Tensor, threshold: float) -> Tensor:
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    kept[nms(boxes, ranks, threshold)] = True
    return kept


@dataclass(frozen=True)
class Unsorted:
    """Boxes of several images in any order.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes, images: Int64[N].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    images: Tensor


def best_of_images(found: Unsorted, images: int, threshold: float, most: int) -> Instances:
    """Class-wise NMS, then the best of each image, all images together.

    Args:
        found: boxes of 0..images - 1.
        images: how many there are.
        threshold: the IoU above which the lower score of a class goes.
        most: how many of an image stay.
    """
    # A class of an image is a group.
    groups = found.classes * images + found.images
    kept = grouped_nms(found.boxes, found.scores, groups, threshold)
    kept = kept[found.images[kept].argsort(stable=True)]
    each = torch.arange(images, device=kept.device)[:, None]
    counts = (found.images[kept] == each).sum(dim=1).tolist()
    kept = torch.cat([of_image[:most] for of_image in kept.split(counts)])
    return Instances(
        found.boxes[kept],
        found.scores[kept],
        found.classes[kept],
        [min(count, most) for count in counts],
    )
