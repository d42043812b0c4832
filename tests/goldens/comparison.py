"""Comparison of d2serve's detections with upstream's."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from d2serve.detections import Detections
from tests.goldens.upstream import UpstreamResult

BOX_TOLERANCE_PX = 0.05
SCORE_TOLERANCE = 1e-3
MIN_MASK_IOU = 0.995
KEYPOINT_TOLERANCE_PX = 0.05
MIN_AGREEMENT = 0.999
MAX_MATCH_DISTANCE_PX = 1.0
# bfloat16 moves single boxes this much, with other rounding of the same layers on a CPU too.
MIN_BOX_IOU = 0.95
HALF_SCORE_TOLERANCE = 0.02


class Boxes(Protocol):
    """Boxes in pixels and their classes."""

    @property
    def boxes_xyxy(self) -> npt.NDArray[Any]: ...
    @property
    def classes(self) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Comparison:
    """Numbers of detections and the largest deviations between them.

    expected, found: detections of upstream and of d2serve; matched: pairs of the same class without
    a side farther apart than MAX_MATCH_DISTANCE_PX; mask_iou: the lowest one; mask_error_px: the
    most pixels in which two masks differ; agreements: shares of pixels, 0..1, with the
    same class or segment. Deviations are None if the model has no such output.
    """

    expected: int
    found: int
    matched: int
    box_error_px: float
    score_error: float
    mask_iou: float | None
    mask_error_px: int | None
    keypoint_error_px: float | None
    semantic_agreement: float | None
    panoptic_agreement: float | None

    @property
    def within_tolerance(self) -> bool:
        return (
            self.expected == self.found == self.matched
            and self.box_error_px <= BOX_TOLERANCE_PX
            and self.score_error <= SCORE_TOLERANCE
            and (self.mask_iou is None or self.mask_iou >= MIN_MASK_IOU)
            and (self.keypoint_error_px or 0.0) <= KEYPOINT_TOLERANCE_PX
            and self.pixel_agreement >= MIN_AGREEMENT
        )

    @property
    def pixel_agreement(self) -> float:
        """The lower agreement of the two maps; 1 without maps."""
        agreements = (self.semantic_agreement, self.panoptic_agreement)
        return min((agreement for agreement in agreements if agreement is not None), default=1.0)


def compare(expected: UpstreamResult, found: Detections) -> Comparison:
    """Match detections one to one and measure their deviations.

    Raises:
        ValueError: only one of the two has masks, keypoints or a map.
    """
    matched = pairs(expected, found)
    panoptic = None if found.panoptic is None else found.panoptic.ids
    masks = found.masks if found.mask_runs is None else found.mask_runs
    for name, ours in {**vars(found), "masks": masks, "panoptic": panoptic}.items():
        if hasattr(expected, name) and (getattr(expected, name) is None) != (ours is None):
            raise ValueError(f"only one of the two has {name}")
    boxes = [np.abs(expected.boxes_xyxy[e] - found.boxes_xyxy[f]).max() for e, f in matched]
    scores = [abs(expected.scores[e] - found.scores[f]) for e, f in matched]
    both_masks = _masks(expected, found, matched)
    scores += [np.abs(e - f).max() for e, f in _keypoint_scores(expected, found, matched)]
    if expected.mask_scores is not None and found.mask_scores is not None:
        scores += [abs(expected.mask_scores[e] - found.mask_scores[f]) for e, f in matched]
    return Comparison(
        expected=len(expected.scores),
        found=len(found),
        matched=len(matched),
        box_error_px=float(max(boxes, default=0.0)),
        score_error=float(max(scores, default=0.0)),
        mask_iou=None
        if both_masks is None
        else min((mask_iou(*both) for both in both_masks), default=1.0),
        mask_error_px=None
        if both_masks is None
        else max((mask_error_px(*both) for both in both_masks), default=0),
        keypoint_error_px=_worst_keypoint(expected, found, matched),
        semantic_agreement=_agreement(expected.semantic, found.semantic),
        panoptic_agreement=_agreement(expected.panoptic, panoptic),
    )


def assert_close_to_upstream(found: Detections, expected: UpstreamResult) -> None:
    """Assert that half precision finds the same instances with similar boxes and scores."""
    assert len(expected.scores) == len(found) > 0
    overlaps = box_iou(torch.from_numpy(expected.boxes_xyxy), torch.from_numpy(found.boxes_xyxy))
    overlap, nearest = overlaps.max(dim=1)
    assert overlap.min() > MIN_BOX_IOU
    assert sorted(nearest.tolist()) == list(range(len(nearest)))
    np.testing.assert_array_equal(found.classes[nearest], expected.classes)
    np.testing.assert_allclose(found.scores[nearest], expected.scores, atol=HALF_SCORE_TOLERANCE)


def pairs(expected: Boxes, found: Boxes) -> list[tuple[int, int]]:
    """Indices of matching boxes, one to one, with the smallest sum of distances."""
    distances = np.abs(expected.boxes_xyxy[:, None] - found.boxes_xyxy).max(axis=2, initial=0.0)
    distances = np.minimum(distances, MAX_MATCH_DISTANCE_PX + 1)
    distances[expected.classes[:, None] != found.classes] = MAX_MATCH_DISTANCE_PX + 1
    nearest = zip(*linear_sum_assignment(distances), strict=True)
    return [(int(e), int(f)) for e, f in nearest if distances[e, f] <= MAX_MATCH_DISTANCE_PX]


def _masks(
    expected: UpstreamResult, found: Detections, pairs: list[tuple[int, int]]
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]] | None:
    if expected.masks is None or not found.has_masks:
        return None
    regions = found.mask_regions([ours for _, ours in pairs])
    return [
        (expected.masks[theirs], region.full(found.size_hw))
        for (theirs, _), region in zip(pairs, regions, strict=True)
    ]


def mask_iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """IoU of two Bool[H, W]; 1 if both are empty."""
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0


def mask_error_px(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> int:
    """Number of pixels in which two Bool[H, W] differ."""
    return int(np.logical_xor(one, other).sum())


def _keypoint_scores(
    expected: UpstreamResult, found: Detections, pairs: list[tuple[int, int]]
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    if expected.keypoints is None or found.keypoints is None:
        return []
    return [
        (expected.keypoints[theirs, :, 2], found.keypoints[ours, :, 2]) for theirs, ours in pairs
    ]


def _worst_keypoint(
    expected: UpstreamResult, found: Detections, pairs: list[tuple[int, int]]
) -> float | None:
    if expected.keypoints is None or found.keypoints is None:
        return None
    errors = [
        np.abs(expected.keypoints[theirs, :, :2] - found.keypoints[ours, :, :2]).max()
        for theirs, ours in pairs
    ]
    return float(max(errors, default=0.0))


def _agreement(
    expected: npt.NDArray[np.int32] | None, found: npt.NDArray[np.int32] | None
) -> float | None:
    if expected is None or found is None:
        return None
    return float((expected == found).mean())
