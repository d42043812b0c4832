"""Grid cells of masks that the threshold crosses or comes near to.

The grid nodes are the centers of a mask's values. A frame of zeros surrounds each mask of M x M
probabilities, so that it has M + 2 nodes and M + 1 cells per side. A line is a column of nodes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Booleans = npt.NDArray[np.bool_]


class BoundaryCells(NamedTuple):
    """B boundary cells of N masks, line by line.

    Attributes:
        masks: Int64[B] index of the mask, ascending.
        lines: Int64[B] in 0..N * (M + 2) - 1, the line at the left of the cell, ascending.
        rows: Float32[B] in 0..M, index of the cell in its line.
        corners: Float32[2, 2, B], the probabilities at its nodes: left and right, upper and lower.
    """

    masks: Tensor
    lines: Tensor
    rows: Tensor
    corners: Tensor


def boundary_cells(
    probabilities: npt.NDArray[np.float32], least: float, most: float
) -> BoundaryCells:
    """Find the cells with a corner of at least `least` and a corner below `most`.

    numpy compares and searches several times as fast as torch.

    Args:
        probabilities: Float32[N, M, M].
        least: the threshold less the margin within which rounding may decide.
        most: the threshold plus that margin.
    """
    count, side = len(probabilities), probabilities.shape[2] + 2
    framed = np.zeros((count, side, side), np.float32)
    framed[:, 1:-1, 1:-1] = probabilities.transpose(0, 2, 1)
    nodes = framed.ravel()
    # A cell below the frame, or between two masks, has zeros only.
    is_boundary = _any_corner(nodes >= np.float32(least), side)
    is_boundary &= _any_corner(nodes < np.float32(most), side)
    numbers = np.flatnonzero(is_boundary)
    lines = numbers // side
    rows = (numbers - lines * side).astype(np.float32)
    corners = nodes.take(numbers + np.array([[[0], [1]], [[side], [side + 1]]]))
    return BoundaryCells(*map(torch.from_numpy, (lines // side, lines, rows, corners)))


def _any_corner(values: Booleans, side: int) -> Booleans:
    """Bool[cells] from Bool[nodes]: true for cells with a true corner."""
    beside = values[:-1] | values[1:]
    return beside[:-side] | beside[side:]
