"""What a network finds, in pixels of its input and then of the original picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handler.rcnn.boxes import clip, larger_than

SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Instances:
    """The objects of one image, best first.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes: Int64[N]; masks:
    Float32[N, M, M] probabilities over each box, or None; keypoints: Float32[N, K, 3] x, y in
    pixels and score in 0..1, or None.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: Tensor) -> "Instances":
        """Those of Int64[K] indices or where Bool[N] is set."""
        return Instances(
            self.boxes[keep],
            self.scores[keep],
            self.classes[keep],
            None if self.masks is None else self.masks[keep],
            None if self.keypoints is None else self.keypoints[keep],
        )


@dataclass(frozen=True)
class Found:
    """All that a network says of one picture, in its own pixels: instances, and Int32[H, W] of
    each pixel's class where it segments."""

    instances: Instances
    semantic: Tensor | None = None


def rescale(found: Instances, size_hw: SizeHW, original_hw: SizeHW) -> Instances:
    """From pixels of the network's input to the original picture's, empty boxes left out
    (`detectron2.modeling.postprocessing.detector_postprocess`)."""
    scale_y, scale_x = (
        original / size for original, size in zip(original_hw, size_hw, strict=True)
    )
    boxes = found.boxes * found.boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))
    keypoints = found.keypoints
    if keypoints is not None:
        keypoints = keypoints * keypoints.new_tensor((scale_x, scale_y, 1.0))
    boxes = clip(boxes, original_hw)
    scaled = replace(found, boxes=boxes, keypoints=keypoints)
    return scaled.select(larger_than(boxes, 0.0))


def no_instances(device: torch.device) -> Instances:
    """What a network without boxes finds."""
    return Instances(
        boxes=torch.zeros((0, 4), device=device),
        scores=torch.zeros(0, device=device),
        classes=torch.zeros(0, dtype=torch.int64, device=device),
    )


def concatenate(per_image: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """All rows of all images in one tensor, and how many each image has."""
    return torch.cat(list(per_image)), [len(rows) for rows in per_image]
