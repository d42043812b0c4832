"""Non-maximum suppression (NMS) of many groups of boxes at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.parallel_nms import parallel_nms
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
# The best boxes of an image that a GPU suppresses first. Most images have fewer; most others keep a
# hundred of these, and then need no more.
BEST_BOXES_GPU = 512


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
    if candidates.boxes.device.type == "cpu":
        return select_best_cpu(candidates, num_images, threshold, max_per_image)
    return select_best_gpu(candidates, num_images, threshold, max_per_image)


def select_best_cpu(
    candidates: ScoredBoxes, num_images: int, threshold: float, max_per_image: int
) -> Instances:
    """Run `select_best` by suppressing all candidates."""
    kept = class_wise_nms(candidates, num_images, threshold)
    counts = _count_per_image(candidates.images[kept], num_images)
    by_image = [of_image[:max_per_image] for of_image in kept.split(counts)]
    kept = torch.cat(by_image)
    return Instances(
        candidates.boxes[kept],
        candidates.scores[kept],
        candidates.classes[kept],
        [len(of_image) for of_image in by_image],
        rows=kept,
    )


def select_best_gpu(
    candidates: ScoredBoxes, num_images: int, threshold: float, max_per_image: int
) -> Instances:
    """Run `select_best` on the BEST_BOXES_GPU best candidates of each image, in parallel.

    Boxes suppress only worse ones: where `max_per_image` of the best candidates stay, no other one
    can be among the result. Images that need the others, too, run all again.
    """
    if max_per_image < 0 or len(candidates.scores) == 0:
        return select_best_cpu(candidates, num_images, threshold, max_per_image)
    best, present, counts = _best_of_each(candidates, num_images)
    # In float64, as in `nms_of_groups`.
    boxes = candidates.boxes[best].double().where(present[..., None], 0.0)
    kept = parallel_nms(boxes, threshold, candidates.classes[best]) & present
    enough = (kept.sum(dim=1) >= max_per_image) | (counts <= best.shape[1])
    kept &= kept.cumsum(dim=1) <= max_per_image
    all_enough, *kept_counts = torch.cat((enough.all()[None], kept.sum(dim=1))).tolist()
    if not all_enough:
        return select_best_cpu(candidates, num_images, threshold, max_per_image)
    chosen = best[kept]
    return Instances(
        candidates.boxes[chosen],
        candidates.scores[chosen],
        candidates.classes[chosen],
        kept_counts,
        rows=chosen,
    )


def _best_of_each(candidates: ScoredBoxes, num_images: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of each image, best first.

    Returns:
        Int64[num_images, K] indices, Bool[num_images, K] false after an image's last candidate, and
        Int64[num_images] numbers of all candidates.
    """
    order = candidates.scores.argsort(descending=True, stable=True)
    order = order[candidates.images[order].argsort(stable=True)]
    each = torch.arange(num_images, device=order.device)
    counts = (candidates.images == each[:, None]).sum(dim=1)
    rank = torch.arange(min(BEST_BOXES_GPU, len(order)), device=order.device)
    positions = (counts.cumsum(0) - counts)[:, None] + rank
    return order[positions.clamp(max=len(order) - 1)], rank < counts[:, None], counts


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
