"""Non-maximum suppression of many groups of boxes in parallel, for GPUs."""

import torch
from torch import Tensor

# Pairs of boxes in a step of `parallel_nms`, to bound its memory.
MAX_PAIRS = 1 << 23
# Steps of `parallel_nms` between two checks for convergence, because a check waits for the GPU.
STEPS_PER_CHECK = 8


def parallel_nms(boxes_xyxy: Tensor, threshold: float, classes: Tensor | None = None) -> Tensor:
    """Bool[G, K] of Float[G, K, 4], best first: the boxes that stay in each of G groups.

    With Int64[G, K] classes, boxes suppress only those of their class.

    A box is suppressed by the better ones that stay. Repeated from "all stay", this step converges
    to the result of sequential NMS, in as many steps as the longest chain of suppressions has
    boxes (Cluster-NMS, Zheng et al. 2021).
    """
    groups_at_once = max(1, MAX_PAIRS // max(1, boxes_xyxy.shape[1] ** 2))
    parts = boxes_xyxy.split(groups_at_once)
    # suppresses[g, i, j]: box i of group g is better than box j and overlaps it.
    suppresses = torch.cat([_pairwise_iou(part) > threshold for part in parts]).triu_(diagonal=1)
    if classes is not None:
        suppresses &= classes[:, :, None] == classes[:, None]
    kept = torch.ones(suppresses.shape[:2], dtype=torch.bool, device=suppresses.device)
    while True:
        for _ in range(STEPS_PER_CHECK):
            before, kept = kept, ~(suppresses & kept[:, :, None]).any(dim=1)
        if torch.equal(before, kept):
            return kept


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """Float[G, K, K] of Float[G, K, 4], rounded as in torchvision; NaN for two empty boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    areas = (x2 - x1) * (y2 - y1)
    intersections = _pairwise_overlap(x1, x2).mul_(_pairwise_overlap(y1, y2))
    return intersections / (areas[:, :, None] + areas[:, None] - intersections)


def _pairwise_overlap(starts: Tensor, ends: Tensor) -> Tensor:
    """Float[G, K, K]: the common length of each two of Float[G, K] intervals, at least 0."""
    end = torch.minimum(ends[:, :, None], ends[:, None])
    return end.sub_(torch.maximum(starts[:, :, None], starts[:, None])).clamp_(min=0)
