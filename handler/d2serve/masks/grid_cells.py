"""Boundary crossings: where columns of pixels cross the threshold, found in grid cells of masks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d2serve.masks.sampling import ranges

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryCrossings:
    """J sections of pixel columns, each within one grid cell, that may cross the threshold.

    Attributes:
        column: Int64[J] index of the column, ascending.
        cell: Int64[J] in 0..M, index of the cell in its column, ascending within a column.
        before: Float32[J], the probability at the cell's upper side.
        after: Float32[J], the probability at the cell's lower side.
    """

    column: Integers
    cell: Integers
    before: Floats
    after: Floats


class GridCells:
    """The grid cells of N masks: the squares between four neighboring values (grid nodes).

    A frame of zeros surrounds each mask of M x M probabilities, so that it has M + 2 nodes and
    M + 1 cells per side. A line is a column of nodes. Boundary cells are cells that the threshold
    crosses or comes near to.

    Args:
        probabilities: Float32[N, M, M].
        threshold: minimum probability of a set pixel.
        margin: distance to the threshold within which rounding may decide.

    Attributes:
        numbers: number of the node at the upper left of each boundary cell, line by line.
        counts: number of boundary cells of each line.
    """

    def __init__(self, probabilities: Floats, threshold: float, margin: float) -> None:
        self.least, self.most = np.float32(threshold - margin), np.float32(threshold + margin)
        self.side = probabilities.shape[-1]
        framed = np.zeros((len(probabilities), self.side + 2, self.side + 2), dtype=np.float32)
        framed[:, 1:-1, 1:-1] = probabilities.transpose(0, 2, 1)
        self.lines = framed.reshape(-1, self.side + 2)
        # From each node to the one on the next line.
        self.steps = np.diff(self.lines, axis=0, append=np.float32(0))
        is_boundary = self._boundary_cells()
        self.numbers = np.flatnonzero(is_boundary)
        self.counts = is_boundary.sum(axis=1)
        self.firsts = np.cumsum(self.counts) - self.counts

    def boundary_crossings(self, masks: Integers, across: Floats) -> BoundaryCrossings:
        """The sections of pixel columns that cross the threshold or come near to it.

        Args:
            masks: Int64[K], the mask of each column.
            across: Float32[K] in -1..M, the column's x coordinate in grid cells, 0 on the first
                line inside the frame.
        """
        left = np.floor(across)
        lines = masks * (self.side + 2) + left.astype(np.int64) + 1
        counts = self.counts.take(lines)
        column = np.repeat(np.arange(len(lines)), counts)
        number = self.numbers.take(ranges(self.firsts.take(lines), counts))
        shares = np.repeat(across - left, counts)
        before, after = (self._between(number + end, shares) for end in (0, 1))
        chosen = np.flatnonzero(self._is_near(before, after))
        cell = number.take(chosen) % (self.side + 2)
        return BoundaryCrossings(column.take(chosen), cell, before.take(chosen), after.take(chosen))

    def _between(self, numbers: Integers, shares: Floats) -> Floats:
        """Probabilities interpolated from each node to the one on the next line."""
        between: Floats = self.steps.take(numbers)
        between *= shares
        between += self.lines.take(numbers)
        return between

    def _boundary_cells(self) -> Booleans:
        """Bool of the shape of `lines`: whether the cell to the lower right of a node is a boundary
        cell; False below the frame and right of the last mask's."""
        may_be_set, may_be_unset = self.lines >= self.least, self.lines < self.most
        is_boundary = np.zeros(self.lines.shape, dtype=np.bool_)
        is_boundary[:-1, :-1] = _any_corner(may_be_set) & _any_corner(may_be_unset)
        return is_boundary

    def _is_near(self, before: Floats, after: Floats) -> Booleans:
        may_be_set = (before >= self.least) | (after >= self.least)
        may_be_unset = (before < self.most) | (after < self.most)
        return may_be_set & may_be_unset


def _any_corner(values: Booleans) -> Booleans:
    """Bool[L - 1, R - 1]: whether any of four neighbors in Bool[L, R] is true."""
    beside = values[:-1] | values[1:]
    return beside[:, :-1] | beside[:, 1:]
