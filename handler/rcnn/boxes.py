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
    dx, dy, dw, dh = (per_box / per_box.new_tensor(weights)).unbind(-1)
    boxes = boxes_xyxy.float()
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sizes
    centre_x = dx * sizes[:, :1] + centres[:, :1]
    centre_y = dy * sizes[:, 1:] + centres[:, 1:]
    half_width = 0.5 * (dw.clamp(max=LOG_SCALE_LIMIT).exp() * sizes[:, :1])
    half_height = 0.5 * (dh.clamp(max=LOG_SCALE_LIMIT).exp() * sizes[:, 1:])
    return torch.stack(
        (
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        ),
        dim=-1,
    )


def clip(boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Limits x to [0, W] and y to [0, H]."""
    height, width = size_hw
    x = boxes_xyxy[..., 0::2].clamp(0, width)
    y = boxes_xyxy[..., 1::2].clamp(0, height)
    return torch.stack((x, y), dim=-1).flatten(-2)


def larger_than(boxes_xyxy: Tensor, side: float) -> Tensor:
    """Bool[N]: which boxes are both wider and higher than `side`."""
    return ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) > side).all(dim=1)
