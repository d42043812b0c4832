"""A reference implementation of deformable convolution by plain sampling."""

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_convolution(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    *,
    stride: int,
    dilation: int,
    modulation: Tensor | None = None,
) -> Tensor:
    """Sample the inputs of each kernel cell with `grid_sample`, then convolve with a 1x1 kernel.

    Dai et al. 2017, equation 2; Zhu et al. 2019, equation 1. Padding keeps the size.

    Args:
        features: Float[N, C, H, W].
        offsets: Float[N, G * k * k * 2, H', W'], y before x, in pixels.
        weight: Float[O, C / groups, k, k].
        modulation: Float[N, G * k * k, H', W'].
    """
    images, channels, height, width = features.shape
    side, (out_height, out_width) = weight.shape[-1], offsets.shape[-2:]
    cells = side * side
    offset_groups = offsets.shape[1] // (2 * cells)
    moved = offsets.view(images, offset_groups, cells, 2, out_height, out_width)
    rows, columns = torch.meshgrid(
        torch.arange(out_height) * stride, torch.arange(out_width) * stride, indexing="ij"
    )
    sampled = []
    for group, part in enumerate(features.chunk(offset_groups, dim=1)):
        by_cell = []
        for cell in range(cells):
            y = rows + (cell // side - side // 2) * dilation + moved[:, group, cell, 0]
            x = columns + (cell % side - side // 2) * dilation + moved[:, group, cell, 1]
            grid = torch.stack((x / (width - 1), y / (height - 1)), dim=-1) * 2 - 1
            values = F.grid_sample(part, grid, align_corners=True)
            if modulation is not None:
                values = values * modulation[:, group * cells + cell, None]
            by_cell.append(values)
        sampled.append(torch.stack(by_cell, dim=2))
    flat = torch.cat(sampled, dim=1).view(images, channels * cells, out_height, out_width)
    groups = channels // weight.shape[1]
    return F.conv2d(flat, weight.reshape(len(weight), -1, 1, 1), groups=groups)
