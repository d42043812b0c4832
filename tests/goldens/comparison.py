"""How far our detections are from upstream's."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from handler.detections import Detections
from handler.masks.paste import paste_mask
from tests.goldens.upstream import UpstreamAnswer

BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3
LEAST_MASK_IOU = 0.995
LEAST_MATCHING_IOU = 0.9


@dataclass(frozen=True)
class Comparison:
    """Over all detections: how many upstream has, how many of ours match, and the worst of each.

    A match has the same class and overlaps by at least LEAST_MATCHING_IOU.
    """

    expected: int
    found: int
    matched: int
    box_error_px: float
    score_error: float
    mask_iou: float

    @property
    def within_tolerance(self) -> bool:
        return (
            self.expected == self.found == self.matched
            and self.box_error_px <= BOX_TOLERANCE_PX
            and self.score_error <= SCORE_TOLERANCE
            and self.mask_iou >= LEAST_MASK_IOU
        )


def compare(expected: UpstreamAnswer, found: Detections) -> Comparison:
    """Pairs each of upstream's detections with ours of the same class that overlaps it best."""
    pairs = _pairs(expected, found)
    boxes = [np.abs(expected.boxes_xyxy[e] - found.boxes_xyxy[f]).max() for e, f in pairs]
    scores = [abs(expected.scores[e] - found.scores[f]) for e, f in pairs]
    return Comparison(
        expected=len(expected.scores),
        found=len(found),
        matched=len({f for _, f in pairs}),
        box_error_px=float(max(boxes, default=0.0)),
        score_error=float(max(scores, default=0.0)),
        mask_iou=min((_mask_iou(expected, found, *pair) for pair in pairs), default=1.0),
    )


def _pairs(expected: UpstreamAnswer, found: Detections) -> list[tuple[int, int]]:
    overlaps = box_iou(
        torch.from_numpy(expected.boxes_xyxy), torch.from_numpy(found.boxes_xyxy)
    ).numpy()
    overlaps = overlaps * (expected.classes[:, None] == found.classes)
    pairs = []
    for row, overlap in enumerate(overlaps):
        best = int(overlap.argmax()) if overlap.size else -1
        if best >= 0 and overlap[best] >= LEAST_MATCHING_IOU:
            pairs.append((row, best))
    return pairs


def _mask_iou(expected: UpstreamAnswer, found: Detections, row: int, ours: int) -> float:
    if expected.masks is None or found.masks is None:
        return 1.0 if expected.masks is None and found.masks is None else 0.0
    mask = paste_mask(found.masks[ours], found.boxes_xyxy[ours], found.size_hw).full(found.size_hw)
    union = np.logical_or(mask, expected.masks[row]).sum()
    return float(np.logical_and(mask, expected.masks[row]).sum() / union) if union else 1.0
