"""Non-maximum suppression by class, as `torchvision.ops.batched_nms` computes it."""

import torch
from torch import Tensor

from handler.torchvision_parts import load_operators

OPERATORS = load_operators("_C", "torchvision", ["nms"])
# Up to here torchvision sets the classes' boxes apart and suppresses once; as their coordinates
# round differently then, ours must do so too.
MOST_AT_ONCE = {"cpu": 1000, "cuda": 5000}


def batched_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Int64[K]: which boxes no better one of their class overlaps by more than the threshold, by
    falling score.

    Args:
        boxes: Float[N, 4], x1, y1, x2, y2.
        scores: Float[N].
        classes: Int64[N].
        threshold: intersection over union, 0..1.
    """
    if len(boxes) > MOST_AT_ONCE[boxes.device.type]:
        return _class_by_class(boxes, scores, classes, threshold)
    if len(boxes) == 0:
        return classes.new_zeros(0)
    apart = classes.to(boxes) * (boxes.max() + 1)
    return _nms(boxes + apart[:, None], scores, threshold)


def _class_by_class(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    kept = torch.zeros_like(classes, dtype=torch.bool)
    for each in classes.unique():
        (own,) = torch.where(classes == each)
        kept[own[_nms(boxes[own], scores[own], threshold)]] = True
    (indices,) = torch.where(kept)
    return indices[scores[indices].argsort(descending=True)]


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept: Tensor = OPERATORS.nms(boxes, scores, threshold)
    return kept
