"""Grid cells of masks that the threshold crosses or comes near to.

The grid nodes are the centers of a mask's values. A frame of zeros surrounds each mask of M x M
probabilities, so that it has M + 2 nodes and M + 1 cells per side. A line is a column of nodes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class BoundaryCells(NamedTuple):
    """B boundary cells of N masks, line by line.

    Attributes:
        lines: Int64[B] in 0..N * (M + 2) - 1, the line at the left of the cell, ascending.
        rows: Float32[B] in 0..M, index of the cell in its line.
        corners: Float32[2, 2, B], the probabilities at its nodes: left and right, upper and lower.
    """

    lines: Tensor
    rows: Tensor
    corners: Tensor


def boundary_cells(probabilities: Tensor, least: float, most: float) -> BoundaryCells:
    """Find the cells with a corner of at least `least` and a corner below `most`.

    Args:
        probabilities: Float32[N, M, M].
        least: the threshold less the margin within which rounding may decide.
        most: the threshold plus that margin.
    """
    count, side = probabilities.shape[0], probabilities.shape[2] + 2
    framed = torch.zeros([count, side, side], dtype=torch.float32)
    framed[:, 1:-1, 1:-1] = probabilities.transpose(1, 2)
    nodes = framed.view(-1)
    # A cell below the frame, or between two masks, has zeros only.
    is_boundary = _any_corner(nodes >= least, side) & _any_corner(nodes < most, side)
    numbers = is_boundary.nonzero().view(-1)
    lines = torch.div(numbers, side, rounding_mode="floor")
    corners = [numbers, numbers + 1, numbers + side, numbers + (side + 1)]
    return BoundaryCells(
        lines,
        (numbers - lines * side).float(),
        nodes.index_select(0, torch.cat(corners)).view(2, 2, -1),
    )


def _any_corner(values: Tensor, side: int) -> Tensor:
    """Bool[cells] from Bool[nodes]: true for cells with a true corner."""
    beside = values[:-1] | values[1:]
    return beside[:-side] | beside[side:]
