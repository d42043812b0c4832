"""Non-maximum suppression (NMS) of many groups of boxes at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.structures import Instances
from d2serve.torchvision_ops import NMS

# More boxes on a CPU are suppressed group by group: one call compares all pairs of them. It is
# torchvision's limit of 4000 values.
MAX_BOXES_CPU = 1_000
# On a GPU torchvision's kernel compares all pairs and needs N * N / 8 bytes for N boxes. Up to the
# first limit (78 MB) all images share a call. Above it each image has one, up to the second limit
# (128 MiB), and each class of larger images has one, with at most one box per proposal.
MAX_BOXES_GPU = 25_000
MAX_IMAGE_BOXES_GPU = 32_768
# Pairs of boxes in a step of `parallel_nms`, to bound its memory.
MAX_PAIRS = 1 << 23
# Steps of `parallel_nms` between two checks for convergence, because a check waits for the GPU.
STEPS_PER_CHECK = 8


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes of several images in any order.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes, images: Int64[N].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    images: Tensor


def select_best(
    candidates: ScoredBoxes, num_images: int, threshold: float, max_per_image: int
) -> Instances:
    """Apply class-wise NMS and keep the best boxes of each image, for all images at once.

    Args:
        candidates: boxes of images 0..num_images - 1.
        num_images: the number of images.
        threshold: IoU above which the lower score of a class is suppressed.
        max_per_image: maximum number of boxes of an image; if negative, the number of lowest scores
            to leave out, times -1.
    """
    kept = class_wise_nms(candidates, num_images, threshold)
    counts = _count_per_image(candidates.images[kept], num_images)
    by_image = [of_image[:max_per_image] for of_image in kept.split(counts)]
    kept = torch.cat(by_image)
    return Instances(
        candidates.boxes[kept],
        candidates.scores[kept],
        candidates.classes[kept],
        [len(of_image) for of_image in by_image],
    )


def class_wise_nms(candidates: ScoredBoxes, num_images: int, threshold: float) -> Tensor:
    """Suppress boxes by better ones of the same class and image.

    The result for an image does not depend on the other images.

    Args:
        candidates: boxes of images 0..num_images - 1.
        num_images: the number of images.
        threshold: IoU above which the lower score is suppressed.

    Returns:
        Int64[K]: indices of the boxes that stay, one image after the other, best first in each.
    """
    if candidates.boxes.device.type == "cpu":
        return class_wise_nms_cpu(candidates, num_images, threshold)
    return class_wise_nms_gpu(candidates, num_images, threshold)


def class_wise_nms_cpu(candidates: ScoredBoxes, num_images: int, threshold: float) -> Tensor:
    """Run `class_wise_nms` in one call, or group by group where all pairs would take longer."""
    suppress = nms_of_groups if len(candidates.boxes) <= MAX_BOXES_CPU else nms_group_by_group
    groups = candidates.classes * num_images + candidates.images
    kept = suppress(candidates.boxes, candidates.scores, groups, threshold)
    return kept[candidates.images[kept].argsort(stable=True)]


def class_wise_nms_gpu(candidates: ScoredBoxes, num_images: int, threshold: float) -> Tensor:
    """Run `class_wise_nms` in one call for all images or for each, as far as memory allows.

    Each call costs a quarter of a millisecond and waits for the GPU.
    """
    boxes, scores, classes = candidates.boxes, candidates.scores, candidates.classes
    if len(boxes) <= MAX_BOXES_GPU:
        groups = classes * num_images + candidates.images
        kept = nms_of_groups(boxes, scores, groups, threshold)
        return kept[candidates.images[kept].argsort(stable=True)]
    by_image = candidates.images.argsort(stable=True)
    kept_parts = []
    for own in by_image.split(_count_per_image(candidates.images, num_images)):
        suppress = nms_of_groups if len(own) <= MAX_IMAGE_BOXES_GPU else nms_group_by_group
        kept_parts.append(own[suppress(boxes[own], scores[own], classes[own], threshold)])
    return torch.cat(kept_parts)


def nms_of_groups(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Int64[K] indices that stay, best first, by one call for all groups.

    Groups are moved apart, in float64, where the offsets cause no rounding.

    Args:
        boxes_xyxy: Float32[N, 4].
        scores: Float32[N].
        groups: Int64[N]; boxes suppress only boxes of their group.
        threshold: IoU above which the lower score is suppressed.
    """
    if len(boxes_xyxy) == 0:
        return groups
    exact = boxes_xyxy.double()
    span = exact.max() - exact.min() + 1
    return NMS(exact + (groups * span)[:, None], scores.double(), threshold)


def nms_group_by_group(
    boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, threshold: float
) -> Tensor:
    """Run `nms_of_groups` with a call for each group."""
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        (own,) = torch.where(groups == group)
        kept[own[NMS(boxes_xyxy[own], scores[own], threshold)]] = True
    (indices,) = torch.where(kept)
    return indices[scores[indices].argsort(descending=True)]


def _count_per_image(images: Tensor, num_images: int) -> list[int]:
    each = torch.arange(num_images, device=images.device)[:, None]
    counts: list[int] = (images == each).sum(dim=1).tolist()
    return counts


def nms_per_level(levels: Sequence[Tensor], threshold: float) -> list[Tensor]:
    """Suppress boxes by better ones of the same image and level.

    Args:
        levels: for each level Float32[N, K, 4] xyxy of N images, best first. An empty box stays and
            suppresses no other.
        threshold: IoU above which the later box is suppressed.

    Returns:
        For each level Bool[N, K], true where a box stays.
    """
    if levels[0].device.type == "cpu":
        return nms_per_level_cpu(levels, threshold)
    return nms_per_level_gpu(levels, threshold)


def nms_per_level_cpu(levels: Sequence[Tensor], threshold: float) -> list[Tensor]:
    """Run `nms_per_level` with a call for each image and level."""
    return [torch.stack([_nms_of_sorted(boxes, threshold) for boxes in level]) for level in levels]


def _nms_of_sorted(boxes: Tensor, threshold: float) -> Tensor:
    ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    kept[NMS(boxes, ranks, threshold)] = True
    return kept


def nms_per_level_gpu(levels: Sequence[Tensor], threshold: float) -> list[Tensor]:
    """Run `nms_per_level` for all levels at once, padded to the longest one."""
    longest = max(level.shape[1] for level in levels)
    padded = torch.cat([F.pad(level, (0, 0, 0, longest - level.shape[1])) for level in levels])
    kept = parallel_nms(padded, threshold).unflatten(0, (len(levels), len(levels[0])))
    return [mask[:, : level.shape[1]] for mask, level in zip(kept, levels, strict=True)]


def parallel_nms(boxes_xyxy: Tensor, threshold: float) -> Tensor:
    """Bool[G, K] of Float32[G, K, 4], best first: the boxes that stay in each of G groups.

    A box is suppressed by the better ones that stay. Repeated from "all stay", this step converges
    to the result of sequential NMS, in as many steps as the longest chain of suppressions has
    boxes (Cluster-NMS, Zheng et al. 2021).
    """
    groups_at_once = max(1, MAX_PAIRS // max(1, boxes_xyxy.shape[1] ** 2))
    parts = boxes_xyxy.split(groups_at_once)
    # suppresses[g, i, j]: box i of group g is better than box j and overlaps it.
    suppresses = torch.cat([_pairwise_iou(part) > threshold for part in parts]).triu_(diagonal=1)
    kept = torch.ones(suppresses.shape[:2], dtype=torch.bool, device=suppresses.device)
    while True:
        for _ in range(STEPS_PER_CHECK):
            before, kept = kept, ~(suppresses & kept[:, :, None]).any(dim=1)
        if torch.equal(before, kept):
            return kept


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """Float32[G, K, K] of Float32[G, K, 4], rounded as in torchvision; NaN for two empty boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    areas = (x2 - x1) * (y2 - y1)
    intersections = _pairwise_overlap(x1, x2).mul_(_pairwise_overlap(y1, y2))
    return intersections / (areas[:, :, None] + areas[:, None] - intersections)


def _pairwise_overlap(starts: Tensor, ends: Tensor) -> Tensor:
    """Float32[G, K, K]: the common length of each two of Float32[G, K] intervals, at least 0."""
    end = torch.minimum(ends[:, :, None], ends[:, None])
    return end.sub_(torch.maximum(starts[:, :, None], starts[:, None])).clamp_(min=0)
