"""Detections: the result type shared by all layers."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# UInt8[H, W, 3], RGB, upright, rows from the top.
Picture: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map.

    Attributes:
        id: its value in the map, at least 1.
        class_index: among the model's things, or, where `is_thing` is False, among its stuff.
        is_thing: whether it is one countable object.
        score: of the instance, 0..1; None for stuff.
    """

    id: int
    class_index: int
    is_thing: bool
    score: float | None = None


@dataclass(frozen=True)
class Panoptic:
    """Every pixel's segment (Kirillov et al. 2019).

    Attributes:
        ids: Int32[H, W], the segment of each pixel, 0 where there is none.
        segments: those of the map, in the order in which they were laid down.
    """

    ids: npt.NDArray[np.int32]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Detections:
    """Instances of one picture, best first, and what the model says of all its pixels.

    Attributes:
        size_hw: height and width of the picture in pixels.
        boxes_xyxy: Float32[N, 4] x1, y1, x2, y2 in the picture's pixels, (0, 0) its top left,
            0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H.
        scores: Float32[N] in 0..1, descending.
        classes: Int64[N] class indices.
        masks: Float32[N, M, M], the probability in 0..1 that a point of the box belongs to the
            instance, over the box's whole extent; None where the model has no masks.
        keypoints: Float32[N, K, 3] x, y in the picture's pixels and score in 0..1; None where the
            model has no keypoints.
        semantic: Int32[H, W], each pixel's index among the model's stuff classes; None where the
            model has no semantic segmentation.
        panoptic: None where the model does not combine instances and stuff.

    Raises:
        ValueError: a field has another dtype or shape.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.float32] | None = None
    keypoints: npt.NDArray[np.float32] | None = None
    semantic: npt.NDArray[np.int32] | None = None
    panoptic: Panoptic | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        _require("boxes_xyxy", self.boxes_xyxy, np.float32, (count, 4))
        _require("scores", self.scores, np.float32, (count,))
        _require("classes", self.classes, np.int64, (count,))
        if self.masks is not None:
            side = self.masks.shape[-1] if self.masks.ndim else 0
            _require("masks", self.masks, np.float32, (count, side, side))
        if self.keypoints is not None:
            points = self.keypoints.shape[1] if self.keypoints.ndim > 1 else 0
            _require("keypoints", self.keypoints, np.float32, (count, points, 3))
        if self.semantic is not None:
            _require("semantic", self.semantic, np.int32, self.size_hw)
        if self.panoptic is not None:
            _require("panoptic.ids", self.panoptic.ids, np.int32, self.size_hw)

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, indices: npt.NDArray[np.intp]) -> "Detections":
        """The instances at Int[K] indices, which have to rise so that the best stay first; what is
        said of all pixels stays as it is."""
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[indices],
            scores=self.scores[indices],
            classes=self.classes[indices],
            masks=None if self.masks is None else self.masks[indices],
            keypoints=None if self.keypoints is None else self.keypoints[indices],
        )


def _require(
    name: str, array: npt.NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name}: expected {np.dtype(dtype)}{list(shape)}, got {array.dtype}{list(array.shape)}"
        )
