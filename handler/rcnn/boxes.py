"""Box arithmetic: boxes are Float[..., 4] as x1, y1, x2, y2 in pixels of the network's input."""

import math

import torch
from torch import Tensor

# A 16 px box may grow to at most 1000 px (`detectron2.modeling.box_regression`).
LOG_SCALE_LIMIT = math.log(1000.0 / 16)


def apply_deltas(deltas: Tensor, boxes_xyxy: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Moves and scales boxes by regression outputs (Girshick et al. 2014, appendix C).

    Args:
        deltas: Float[N, K * 4] of dx, dy, dw, dh; K boxes are predicted from each one given.
        boxes_xyxy: Float[N, 4].
        weights: what dx, dy, dw and dh are divided by.

    Returns:
        Float32[N, K, 4].
    """
    per_box = deltas.float().view(len(deltas), deltas.shape[1] // 4, 4)
    # By numbers, because a tensor of them would first have to get to the device.
    dx, dy, dw, dh = (
        delta / weight for delta, weight in zip(per_box.unbind(-1), weights, strict=True)
    )
    boxes = boxes_xyxy.float()
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    centre_x = dx * sizes[:, :1] + centres[:, :1]
    centre_y = dy * sizes[:, 1:] + centres[:, 1:]
    half_width = 0.5 * (dw.clamp(max=LOG_SCALE_LIMIT).exp() * sizes[:, :1])
    half_height = 0.5 * (dh.clamp(max=LOG_SCALE_LIMIT).exp() * sizes[:, 1:])
    return around(centre_x, centre_y, half_width, half_height)


def around(x: Tensor, y: Tensor, half_width: Tensor, half_height: Tensor) -> Tensor:
    """Float[..., 4] boxes by their centres and halves of their sides, Float[...] each."""
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)


def clip(boxes_xyxy: Tensor, limits: Tensor) -> Tensor:
    """Limits boxes to 0 and to what x1, y1, x2 and y2 may be at most.

    Args:
        boxes_xyxy: Float32[..., 4].
        limits: Float32[4], or with the boxes' dimensions before.
    """
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)


def larger_than(boxes_xyxy: Tensor, side: float) -> Tensor:
    """Bool[...]: which of Float[..., 4] are both wider and higher than `side`."""
    return ((boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]) > side).all(dim=-1)
