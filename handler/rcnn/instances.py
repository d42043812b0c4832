"""What a network finds, in pixels of its input and then of the original picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handler.rcnn.boxes import clip
from handler.rcnn.transfer import to_device

SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Instances:
    """The objects of one image or of several, one image after the other, best first in each.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes: Int64[N]; counts: how
    many of the N each image has; masks: Float32[N, M, M] probabilities over each box, or None;
    keypoints: Float32[N, K, 3] x, y in pixels and score in 0..1, or None.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Sequence[int]
    masks: Tensor | None = None
    keypoints: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def by_image(self) -> list["Instances"]:
        """Those of each image."""
        fields = (self.boxes, self.scores, self.classes, self.masks, self.keypoints)
        columns = [_split(field, self.counts) for field in fields]
        return [
            Instances(boxes, scores, classes, [count], masks, keypoints)
            for boxes, scores, classes, masks, keypoints, count in zip(
                *columns, self.counts, strict=True
            )
        ]


@dataclass(frozen=True)
class Found:
    """All that a network says of one picture, in its own pixels: instances, and Int32[H, W] of
    each pixel's class where it segments."""

    instances: Instances
    semantic: Tensor | None = None


def rescale(
    found: Instances, sizes_hw: Sequence[SizeHW], original_sizes_hw: Sequence[SizeHW]
) -> Instances:
    """From pixels of the network's input to the original pictures'
    (`detectron2.modeling.postprocessing.detector_postprocess`).

    Boxes that are empty there stay, because only the host can leave them out without waiting for
    the device.
    """
    device = found.boxes.device
    image = image_indices(found.counts, device)
    originals = limits(original_sizes_hw, device)
    factors = [
        (original[1] / size[1], original[0] / size[0])
        for size, original in zip(sizes_hw, original_sizes_hw, strict=True)
    ]
    scales = to_device(torch.tensor(factors), device)[image]
    boxes = clip(found.boxes * scales.repeat(1, 2), originals[image])
    keypoints = found.keypoints
    if keypoints is not None:
        places = keypoints[..., :2] * scales[:, None]
        keypoints = torch.cat((places, keypoints[..., 2:]), dim=-1)
    return replace(found, boxes=boxes, keypoints=keypoints)


def limits(sizes_hw: Sequence[SizeHW], device: torch.device) -> Tensor:
    """Float32[N, 4]: the largest x, y, x and y of boxes in images of these heights and widths."""
    rows = [(width, height, width, height) for height, width in sizes_hw]
    return to_device(torch.tensor(rows, dtype=torch.float32), device)


def image_indices(counts: Sequence[int], device: torch.device) -> Tensor:
    """Int64[sum of counts]: which image each row is of."""
    indices = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return to_device(indices, device)


def no_instances(device: torch.device) -> Instances:
    """What a network without boxes finds in an image."""
    return Instances(
        boxes=torch.zeros((0, 4), device=device),
        scores=torch.zeros(0, device=device),
        classes=torch.zeros(0, dtype=torch.int64, device=device),
        counts=[0],
    )


def _split(rows: Tensor | None, counts: Sequence[int]) -> Sequence[Tensor | None]:
    return [None] * len(counts) if rows is None else rows.split(list(counts))
