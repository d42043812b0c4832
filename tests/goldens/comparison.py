"""How far our detections are from upstream's."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from handler.detections import Detections
from handler.masks.paste import paste_mask
from tests.goldens.upstream import UpstreamAnswer

BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3
LEAST_MASK_IOU = 0.995
KEYPOINT_TOLERANCE_PX = 0.05
LEAST_AGREEMENT = 0.999
FARTHEST_MATCH_PX = 1.0


@dataclass(frozen=True)
class Comparison:
    """Over all detections: how many upstream has, how many of ours match, and the worst of each.

    A match has the same class and no side farther away than FARTHEST_MATCH_PX. Agreement is the
    part of the pixels, 0..1, that have the same class or segment.
    """

    expected: int
    found: int
    matched: int
    box_error_px: float
    score_error: float
    mask_iou: float
    keypoint_error_px: float
    semantic_agreement: float
    panoptic_agreement: float

    @property
    def within_tolerance(self) -> bool:
        return (
            self.expected == self.found == self.matched
            and self.box_error_px <= BOX_TOLERANCE_PX
            and self.score_error <= SCORE_TOLERANCE
            and self.mask_iou >= LEAST_MASK_IOU
            and self.keypoint_error_px <= KEYPOINT_TOLERANCE_PX
            and self.semantic_agreement >= LEAST_AGREEMENT
            and self.panoptic_agreement >= LEAST_AGREEMENT
        )


def compare(expected: UpstreamAnswer, found: Detections) -> Comparison:
    """Pairs each of upstream's detections with the nearest one of ours."""
    pairs = _pairs(expected, found)
    boxes = [np.abs(expected.boxes_xyxy[e] - found.boxes_xyxy[f]).max() for e, f in pairs]
    scores = [abs(expected.scores[e] - found.scores[f]) for e, f in pairs]
    return Comparison(
        expected=len(expected.scores),
        found=len(found),
        matched=len(pairs),
        box_error_px=float(max(boxes, default=0.0)),
        score_error=float(max(scores, default=0.0)),
        mask_iou=min((_mask_iou(expected, found, *pair) for pair in pairs), default=1.0),
        keypoint_error_px=max(
            (_keypoint_error(expected, found, *pair) for pair in pairs), default=0.0
        ),
        semantic_agreement=_agreement(expected.semantic, found.semantic),
        panoptic_agreement=_agreement(
            expected.panoptic, None if found.panoptic is None else found.panoptic.ids
        ),
    )


def _pairs(expected: UpstreamAnswer, found: Detections) -> list[tuple[int, int]]:
    """One to one, so that all distances together are least."""
    distances = np.abs(expected.boxes_xyxy[:, None] - found.boxes_xyxy).max(axis=2, initial=0.0)
    distances = np.minimum(distances, FARTHEST_MATCH_PX + 1)
    distances[expected.classes[:, None] != found.classes] = FARTHEST_MATCH_PX + 1
    pairs = zip(*linear_sum_assignment(distances), strict=True)
    return [(int(e), int(f)) for e, f in pairs if distances[e, f] <= FARTHEST_MATCH_PX]


def _mask_iou(expected: UpstreamAnswer, found: Detections, row: int, ours: int) -> float:
    if expected.masks is None or found.masks is None:
        return 1.0 if expected.masks is None and found.masks is None else 0.0
    mask = paste_mask(found.masks[ours], found.boxes_xyxy[ours], found.size_hw).full(found.size_hw)
    union = np.logical_or(mask, expected.masks[row]).sum()
    return float(np.logical_and(mask, expected.masks[row]).sum() / union) if union else 1.0


def _keypoint_error(expected: UpstreamAnswer, found: Detections, row: int, ours: int) -> float:
    if expected.keypoints is None or found.keypoints is None:
        return 0.0 if expected.keypoints is None and found.keypoints is None else math.inf
    return float(np.abs(expected.keypoints[row, :, :2] - found.keypoints[ours, :, :2]).max())


def _agreement(
    expected: npt.NDArray[np.int32] | None, found: npt.NDArray[np.int32] | None
) -> float:
    if expected is None or found is None:
        return 1.0 if expected is None and found is None else 0.0
    return float((expected == found).mean())
