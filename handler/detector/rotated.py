"""Rotated boxes as upright boxes and masks.

A rotated box is Float[5]: centre x, centre y, width and height in pixels, and the angle in degrees,
counter-clockwise as seen in the picture (`detectron2.structures.RotatedBoxes`).
"""

import math

import torch
from torch import Tensor

from handler.rcnn.boxes import around

MASK_SIDE = 56


def enclosing_boxes(rotated: Tensor) -> Tensor:
    """Float[N, 5] rotated boxes -> Float[N, 4] the smallest upright x1, y1, x2, y2 around each."""
    centre_x, centre_y, width, height, angle = rotated.unbind(-1)
    cosine, sine = _cosine_and_sine(angle)
    half_width = (width * cosine.abs() + height * sine.abs()) / 2
    half_height = (width * sine.abs() + height * cosine.abs()) / 2
    return around(centre_x, centre_y, half_width, half_height)


def masks_over(rotated: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """The rotated boxes drawn over upright ones, as `Detections.masks` are.

    Across the outline the values fall evenly over one and a half mask cells, 0.5 at the outline, so
    that what is interpolated between cells has it in the same place; only corners lose up to one
    cell.

    Args:
        rotated: Float[N, 5].
        boxes_xyxy: Float[N, 4] that are wider and higher than 0.

    Returns:
        Float[N, MASK_SIDE, MASK_SIDE] in 0..1.
    """
    centre_x, centre_y, width, height, angle = (column[:, None, None] for column in rotated.T)
    cosine, sine = _cosine_and_sine(angle)
    cells = (torch.arange(MASK_SIDE, device=rotated.device) + 0.5) / MASK_SIDE
    x1, y1, x2, y2 = (column[:, None, None] for column in boxes_xyxy.T)
    x = x1 + cells[None, None, :] * (x2 - x1) - centre_x
    y = y1 + cells[None, :, None] * (y2 - y1) - centre_y
    inside = torch.minimum(
        width / 2 - (cosine * x - sine * y).abs(), height / 2 - (sine * x + cosine * y).abs()
    )
    cell_side = torch.maximum(x2 - x1, y2 - y1) / MASK_SIDE
    return (0.5 + inside / (1.5 * cell_side)).clamp(0, 1)


def _cosine_and_sine(degrees: Tensor) -> tuple[Tensor, Tensor]:
    radians = degrees * (math.pi / 180)
    return radians.cos(), radians.sin()
