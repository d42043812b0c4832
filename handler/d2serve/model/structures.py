"""Boxes, instances and outputs of a batch of images (`detectron2.structures`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.model.preprocessing import to_device

SizeHW = tuple[int, int]
# A 16 px box may grow to at most 1000 px (`detectron2.modeling.box_regression`).
LOG_SCALE_LIMIT = math.log(1000.0 / 16)


@dataclass(frozen=True)
class Instances:
    """The instances of one or several images, one image after the other, best first in each.

    boxes: Float32[N, 4] xyxy in pixels; scores: Float32[N] in 0..1; classes: Int64[N]; counts:
    number of instances of each image; masks: Float32[N, M, M] probabilities over each box, or None;
    keypoints: Float32[N, K, 3] x, y in pixels and score in 0..1, or None; densepose: Float32[N, C,
    S, S] the output of the DensePose head relative to each box, see `densepose_head`, or None;
    rows: Int64[N] indices among the candidates that the instances were selected from, or None;
    mask_scores: Float32[N] the scores times the predicted quality of the masks, or None.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Sequence[int]
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    densepose: Tensor | None = None
    rows: Tensor | None = None
    mask_scores: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def by_image(self) -> list["Instances"]:
        """Split into the instances of each image."""
        split = {
            field.name: _split(getattr(self, field.name), self.counts)
            for field in fields(self)
            if field.name != "counts"
        }
        return [
            Instances(counts=[count], **{name: rows[image] for name, rows in split.items()})
            for image, count in enumerate(self.counts)
        ]


def _split(rows: Tensor | None, counts: Sequence[int]) -> Sequence[Any]:
    return [None] * len(counts) if rows is None else rows.split(list(counts))


def no_instances(device: torch.device) -> Instances:
    """The instances of an image from a network without a box head."""
    return Instances(
        boxes=torch.zeros((0, 4), device=device),
        scores=torch.zeros(0, device=device),
        classes=torch.zeros(0, dtype=torch.int64, device=device),
        counts=[0],
    )


@dataclass(frozen=True)
class QueryOutput:
    """The segments of one image as MaskFormer predicts them (Cheng et al. 2021): a class and a mask
    for each of Q queries.

    Attributes:
        class_logits: Float[Q, K + 1] of the K classes and of "no object", or Float[Q, K].
        mask_logits: Float[Q, h, w] over the extent of the padded input.
        padded_hw: height and width of the padded input in pixels.
        size_hw: height and width of the resized image, its top left part.
        original_hw: height and width of the image before resizing.
        boxes: Float32[Q, 4] centre x and y, width and height as shares of the padded input, or
            None (MaskFormer).
    """

    class_logits: Tensor
    mask_logits: Tensor
    padded_hw: SizeHW
    size_hw: SizeHW
    original_hw: SizeHW
    boxes: Tensor | None = None


@dataclass(frozen=True)
class ImageMaskOutput:
    """Masks of the N instances of one image over its whole input (CondInst, Tian et al. 2020).

    Attributes:
        probabilities: Float[N, h, w] in 0..1 at every s-th pixel of the padded input.
        padded_hw: height and width of the padded input in pixels, s times h and w.
        size_hw: height and width of the resized image, its top left part.
        original_hw: height and width of the image before resizing.
    """

    probabilities: Tensor
    padded_hw: SizeHW
    size_hw: SizeHW
    original_hw: SizeHW


@dataclass(frozen=True)
class ModelOutput:
    """A network's output for one image, in pixels of the original image.

    Attributes:
        instances: the instances; none from a network with queries.
        semantic: Int32[H, W] class of each pixel, or None without a semantic head.
        queries: segments that are still to be scaled and selected, or None.
        image_masks: masks of the instances that are still to be scaled, or None.
    """

    instances: Instances
    semantic: Tensor | None = None
    queries: QueryOutput | None = None
    image_masks: ImageMaskOutput | None = None


def rescale(
    instances: Instances, sizes_hw: Sequence[SizeHW], original_sizes_hw: Sequence[SizeHW]
) -> Instances:
    """Scale instances from the resized to the original images
    (`detectron2.modeling.postprocessing.detector_postprocess`).

    Boxes that become empty stay: the host removes them later, without an extra synchronization
    with the device.
    """
    device = instances.boxes.device
    image = image_indices(instances.counts, device)
    originals = limits(original_sizes_hw, device)
    scales = scale_factors(sizes_hw, original_sizes_hw, device)[image]
    boxes = clip(instances.boxes * scales, originals[image])
    keypoints = instances.keypoints
    if keypoints is not None:
        points = keypoints[..., :2] * scales[:, None, :2]
        keypoints = torch.cat((points, keypoints[..., 2:]), dim=-1)
    return replace(instances, boxes=boxes, keypoints=keypoints)


def scale_factors(
    sizes_hw: Sequence[SizeHW], new_sizes_hw: Sequence[SizeHW], device: torch.device
) -> Tensor:
    """Float32[N, 4]: factors of x, y, x and y between images of these heights and widths."""
    factors = [
        (new[1] / size[1], new[0] / size[0]) * 2
        for size, new in zip(sizes_hw, new_sizes_hw, strict=True)
    ]
    return to_device(torch.tensor(factors), device)


def image_indices(counts: Sequence[int], device: torch.device) -> Tensor:
    """Int64[sum of counts]: the image index of each row."""
    # Not torch's repeat_interleave, which starts all threads for this.
    indices = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return to_device(torch.from_numpy(indices), device)


def limits(sizes_hw: Sequence[SizeHW], device: torch.device) -> Tensor:
    """Float32[N, 4]: the largest x, y, x and y of boxes in images of these heights and widths."""
    rows = [(width, height, width, height) for height, width in sizes_hw]
    return to_device(torch.tensor(rows, dtype=torch.float32), device)


def clip(boxes_xyxy: Tensor, limits: Tensor) -> Tensor:
    """Limit coordinates to 0..`limits`.

    Args:
        boxes_xyxy: Float32[..., 4].
        limits: Float32[4] or [..., 4], the largest x1, y1, x2 and y2.
    """
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)


def larger_than(boxes_xyxy: Tensor, side: float) -> Tensor:
    """Bool[...]: whether width and height of Float[..., 4] exceed `side`."""
    return ((boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]) > side).all(dim=-1)


def apply_deltas(
    deltas: Tensor,
    boxes_xyxy: Tensor,
    weights: tuple[float, ...],
    log_scale_limit: float = LOG_SCALE_LIMIT,
) -> Tensor:
    """Move and scale boxes by regression outputs (Girshick et al. 2014, appendix C).

    Args:
        deltas: Float[N, K * 4] of dx, dy, dw, dh; K boxes are predicted from each given one.
        boxes_xyxy: Float32[N, 4].
        weights: divisors of dx, dy, dw and dh.
        log_scale_limit: the largest logarithm of a change of width or height.

    Returns:
        Float32[N, K, 4].
    """
    per_box = deltas.float().view(len(deltas), deltas.shape[1] // 4, 4)
    # Division by numbers: a tensor of weights would have to be copied to the device first.
    dx, dy, dw, dh = (
        delta / weight for delta, weight in zip(per_box.unbind(-1), weights, strict=True)
    )
    boxes = boxes_xyxy.float()
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    centre_x = dx * sizes[:, :1] + centres[:, :1]
    centre_y = dy * sizes[:, 1:] + centres[:, 1:]
    half_width = 0.5 * (dw.clamp(max=log_scale_limit).exp() * sizes[:, :1])
    half_height = 0.5 * (dh.clamp(max=log_scale_limit).exp() * sizes[:, 1:])
    return around(centre_x, centre_y, half_width, half_height)


def around(x: Tensor, y: Tensor, half_width: Tensor, half_height: Tensor) -> Tensor:
    """Float[..., 4] xyxy boxes from centres and half sides, Float[...] each."""
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)
