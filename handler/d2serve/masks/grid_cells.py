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
        firsts: Int32[N * (M + 2)] index of each line's first boundary cell.
        counts: Int32[N * (M + 2)] number of boundary cells to the right of each line.
        rows: Float32[B] in 0..M, index of the cell in its line.
        upper: Float32[B], the probability at the cell's upper left node.
        lower: Float32[B], the probability at the cell's lower left node.
        upper_step: Float32[B], the difference from the upper left node to the upper right one.
        lower_step: Float32[B], the difference from the lower left node to the lower right one.
    """

    firsts: Tensor
    counts: Tensor
    rows: Tensor
    upper: Tensor
    lower: Tensor
    upper_step: Tensor
    lower_step: Tensor


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
    numbers = is_boundary.nonzero().view(-1).int()
    lines = torch.div(numbers, side, rounding_mode="floor")
    counts = torch.bincount(lines, minlength=count * side).int()
    upper, lower = nodes.index_select(0, numbers), nodes.index_select(0, numbers + 1)
    return BoundaryCells(
        counts.cumsum(0, dtype=torch.int32) - counts,
        counts,
        (numbers - lines * side).float(),
        upper,
        lower,
        nodes.index_select(0, numbers + side) - upper,
        nodes.index_select(0, numbers + (side + 1)) - lower,
    )


def _any_corner(values: Tensor, side: int) -> Tensor:
    """Bool[cells] from Bool[nodes]: true for cells with a true corner."""
    beside = values[:-1] | values[1:]
    return beside[:-side] | beside[side:]
