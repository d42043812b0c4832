"""Anchors on a feature pyramid (`detectron2.modeling.anchor_generator.DefaultAnchorGenerator`)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from d2serve.model.heads_config import AnchorConfig


class Anchors(nn.Module):
    """The anchors of every level; buffers that move with the network but are not in its state."""

    def __init__(self, config: AnchorConfig, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.offset = config.offset
        for level, shape in enumerate(zip(config.sizes, config.ratios, strict=True)):
            self.register_buffer(f"cell{level}", cell_anchors(*shape), persistent=False)

    def forward(self, level: int, feature: Tensor) -> Tensor:
        """Float32[H * W * A, 4] xyxy in input pixels, for the level's Float[N, C, H, W]."""
        height, width = feature.shape[-2:]
        cell = self.get_buffer(f"cell{level}")
        return grid_anchors(cell, (height, width), self.strides[level], self.offset)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Float32[sizes * ratios, 4] xyxy around (0, 0).

    Args:
        sizes: square roots of areas, in pixels.
        ratios: height / width.
    """
    rows = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2.0 / ratio)
            height = ratio * width
            rows.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
    return torch.tensor(rows)


def grid_anchors(cell: Tensor, size_hw: tuple[int, int], stride: int, offset: float) -> Tensor:
    """Float32[H * W * A, 4] xyxy in input pixels: the anchors of every pixel of a feature map.

    Args:
        cell: Float32[A, 4], see `cell_anchors`.
        size_hw: height and width of the feature map.
        stride: input pixels per feature pixel.
        offset: position of an anchor's centre in its cell, 0 (top left) to 1.
    """
    height, width = size_hw
    x = torch.arange(width, dtype=torch.float32, device=cell.device) * stride + offset * stride
    y = torch.arange(height, dtype=torch.float32, device=cell.device) * stride + offset * stride
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)
