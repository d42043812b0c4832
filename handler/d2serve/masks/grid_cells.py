"""Boundary crossings: the grid cells of a mask that the threshold 0.5 crosses."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d2serve.masks.sampling import ranges

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Crossings:
    """J stretches of columns of pixels, each from one side of a cell to the other.

    Attributes:
        column: Int64[J], never falling: which column.
        interval: Int64[J] in 0..M: which of the column's cells, rising within a column.
        before: Float32[J], the probability at the cell's upper side.
        after: Float32[J], the probability at its lower side.
    """

    column: Integers
    interval: Integers
    before: Floats
    after: Floats


class Cells:
    """The cells of N masks of M x M probabilities: squares between four neighbouring values.

    Around a mask is a frame of zeros, so that it has M + 1 cells a side. A line is a mask's column
    of values, M + 2 of them with the frame.

    Args:
        probabilities: Float32[N, M, M].
        threshold: from which probability on a pixel is set.
        margin: how far from the threshold rounding may decide.
    """

    def __init__(self, probabilities: Floats, threshold: float, margin: float) -> None:
        self.least, self.most = np.float32(threshold - margin), np.float32(threshold + margin)
        self.side = probabilities.shape[-1]
        framed = np.zeros((len(probabilities), self.side + 2, self.side + 2), dtype=np.float32)
        framed[:, 1:-1, 1:-1] = probabilities.transpose(0, 2, 1)
        self.lines = framed.reshape(-1, self.side + 2)
        self.steps = np.diff(self.lines, axis=0, append=np.float32(0))
        undecided = self._undecided_cells()
        # The number of the value at each one's upper left.
        self.numbers = np.flatnonzero(undecided)
        self.counts = undecided.sum(axis=1)
        self.firsts = np.cumsum(self.counts) - self.counts

    def crossings(self, masks: Integers, across: Floats) -> Crossings:
        """Where columns of pixels cross the threshold or come near.

        Args:
            masks: Int64[K], the mask of each column.
            across: Float32[K] in -1..M, where the column is in its mask, 0 in the middle of the
                first line.
        """
        left = np.floor(across)
        lines = masks * (self.side + 2) + left.astype(np.int64) + 1
        counts = self.counts.take(lines)
        column = np.repeat(np.arange(len(lines)), counts)
        number = self.numbers.take(ranges(self.firsts.take(lines), counts))
        shares = np.repeat(across - left, counts)
        before, after = (self._between(number + end, shares) for end in (0, 1))
        crossed = np.flatnonzero(self._undecided(before, after))
        interval = number.take(crossed) % (self.side + 2)
        return Crossings(column.take(crossed), interval, before.take(crossed), after.take(crossed))

    def _between(self, numbers: Integers, shares: Floats) -> Floats:
        """Interpolated from a value to the one right of it."""
        between: Floats = self.steps.take(numbers)
        between *= shares
        between += self.lines.take(numbers)
        return between

    def _undecided_cells(self) -> Booleans:
        """Bool of the shape of `lines`: whether in the cell to the right and below of each value
        the threshold is crossed or comes near. No cell is below the frame, nor right of the last
        mask's."""
        may_be_set, may_be_unset = self.lines >= self.least, self.lines < self.most
        undecided = np.zeros(self.lines.shape, dtype=np.bool_)
        undecided[:-1, :-1] = _some_corner(may_be_set) & _some_corner(may_be_unset)
        return undecided

    def _undecided(self, before: Floats, after: Floats) -> Booleans:
        may_be_set = (before >= self.least) | (after >= self.least)
        may_be_unset = (before < self.most) | (after < self.most)
        return may_be_set & may_be_unset


def _some_corner(values: Booleans) -> Booleans:
    """Bool[L - 1, R - 1]: whether of four neighbours of Bool[L, R] one is true."""
    beside = values[:-1] | values[1:]
    return beside[:, :-1] | beside[:, 1:]
