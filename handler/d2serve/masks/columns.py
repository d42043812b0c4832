"""Mask probabilities over boxes -> runs of set pixels, column by column."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.grid_cells import Cells, Crossings
from d2serve.masks.sampling import box_coordinates, ranges, sample

# Small enough for the cache; so many pixels of boxes, were they all to be sampled, fit in memory.
BLOCK_PIXELS = 1 << 21
LEAST_ROWS = 64
# In place of a line's rise of nothing.
NO_RISE = 1e-12
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


def paste_by_columns(
    probabilities: Floats,
    boxes_xyxy: Floats,
    size_hw: tuple[int, int],
    threshold: float,
    margin: float,
) -> tuple[Integers, Integers]:
    """The bounds and offsets of masks, as `Runs` has them, from their cells.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents.
        boxes_xyxy: Float32[N, 4] in pixels; one without width or height has no pixels.
        size_hw: height and width of the picture.
        threshold: from which probability on a pixel is set.
        margin: how far from the threshold rounding may decide.
    """
    pasting = _Pasting(probabilities, boxes_xyxy, size_hw, threshold, margin)
    columns = pasting.columns()
    events = [pasting.events(columns[block]) for block in pasting.blocks(columns)]
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *(number for number, _ in events)])
    states = np.concatenate([np.empty(0, dtype=np.bool_), *(state for _, state in events)])
    bounds = _changes(numbers, states)
    first_pixels = np.arange(len(boxes_xyxy) + 1) * pasting.stride
    offsets = np.searchsorted(bounds, first_pixels)
    return bounds - np.repeat(first_pixels[:-1], np.diff(offsets)), offsets


@dataclass(frozen=True)
class _Columns:
    """K columns of pixels of masks: Int64[K] which mask, Int64[K] which x, Float32[K] where that
    is in the mask's box (`box_coordinates`)."""

    masks: Integers
    x: Integers
    across: Floats

    def __getitem__(self, chosen: slice | Booleans | Integers) -> "_Columns":
        return _Columns(self.masks[chosen], self.x[chosen], self.across[chosen])


class _Pasting:
    """Masks on their way to runs.

    So that no two masks share a pixel's number, nor touch, mask n begins at n * `stride`.
    """

    def __init__(
        self,
        probabilities: Floats,
        boxes_xyxy: Floats,
        size_hw: tuple[int, int],
        threshold: float,
        margin: float,
    ) -> None:
        self.probabilities = probabilities
        self.boxes = boxes_xyxy
        self.height, self.width = size_hw
        self.threshold, self.margin = threshold, margin
        self.stride = self.height * self.width + 1
        self.side = probabilities.shape[-1]
        self.cells = Cells(probabilities, threshold, margin)
        _, top, _, bottom = boxes_xyxy.astype(np.float64).T
        self.rows_per_cell = (bottom - top) / self.side
        self.first_knots = top - 0.5 - 0.5 * self.rows_per_cell

    def columns(self) -> _Columns:
        """Those of all masks that may have set pixels, mask by mask, from the left."""
        starts, tops, ends, bottoms = self.boxes.T
        left = np.clip(np.floor(starts) - 1, 0, self.width).astype(np.int64)
        right = np.clip(np.ceil(ends) + 1, left, self.width).astype(np.int64)
        counts = (right - left) * ((starts < ends) & (tops < bottoms))
        masks, x = np.repeat(np.arange(len(counts)), counts), ranges(left, counts)
        across = box_coordinates(x, starts[masks], ends[masks])
        cells = self._in_cells(across)
        return _Columns(masks, x, across)[(cells > -1) & (cells < self.side)]

    def blocks(self, columns: _Columns) -> Iterator[slice]:
        """Neighbouring columns of about `BLOCK_PIXELS` together."""
        rows = np.clip(self.rows_per_cell * self.side, LEAST_ROWS, max(self.height, LEAST_ROWS))
        filled = np.cumsum(rows.take(columns.masks))
        most = filled[-1] if len(filled) else 0
        cuts = np.searchsorted(filled, np.arange(BLOCK_PIXELS, most, BLOCK_PIXELS)).tolist()
        return (slice(*ends) for ends in pairwise([0, *cuts, len(filled)]))

    def events(self, columns: _Columns) -> tuple[Integers, Booleans]:
        """Int64[E] numbers of pixels, never falling, and Bool[E], whether pixels are set from
        there on; of several that say so of one pixel the last holds."""
        found = self.cells.crossings(columns.masks, self._in_cells(columns.across))
        start, end = self._doubtful_rows(columns.masks.take(found.column), found)
        tops = (columns.masks * self.stride + columns.x * self.height).take(found.column)
        doubts = np.flatnonzero(end > start)
        set_after = found.after >= np.float32(self.threshold)
        if not len(doubts):
            return tops + end, set_after
        lengths = (end - start).take(doubts)
        rows, doubts = ranges(start.take(doubts), lengths), np.repeat(doubts, lengths)
        sampled = self._sample(columns[found.column[doubts]], rows)
        return (
            np.insert(tops + end, doubts, tops[doubts] + rows),
            np.insert(set_after, doubts, sampled >= np.float32(self.threshold)),
        )

    def _in_cells(self, across: Floats) -> Floats:
        """Where coordinates in boxes are among cells, 0 the middle of the first value."""
        return (across + np.float32(1)) * np.float32(self.side / 2) - np.float32(0.5)

    def _doubtful_rows(self, masks: Integers, found: Crossings) -> tuple[Integers, Integers]:
        """The first row for which rounding may decide, and the first after those."""
        before = found.before.astype(np.float64)
        rise = found.after - before
        rise[rise == 0] = NO_RISE
        crossing = (self.threshold - before) / rise
        reach = np.abs(self.margin / rise)
        first, per_cell = self.first_knots.take(masks), self.rows_per_cell.take(masks)
        ends = (np.maximum(crossing - reach, 0), np.minimum(crossing + reach, 1))
        # Summed in this order a cell's lower side is in the very place of the next one's upper.
        start, end = (np.ceil(first + per_cell * (found.interval + share)) for share in ends)
        return self._rows(start), self._rows(end)

    def _rows(self, rows: Doubles) -> Integers:
        return np.minimum(np.maximum(rows, 0), self.height).astype(np.int64)

    def _sample(self, columns: _Columns, rows: Integers) -> Floats:
        _, tops, _, bottoms = self.boxes[columns.masks].T
        points = np.stack((columns.across, box_coordinates(rows, tops, bottoms)), axis=1)
        return sample(self.probabilities, columns.masks, points)


def _changes(numbers: Integers, states: Booleans) -> Integers:
    """The numbers of pixels from which on set and unset take turns."""
    holds = np.diff(numbers, append=-1) != 0
    numbers, states = numbers[holds], states[holds]
    return numbers[np.diff(states, prepend=False)]
