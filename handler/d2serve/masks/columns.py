"""Mask probabilities over boxes -> runs of set pixels, by the boundary crossings of columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.grid_cells import BoundaryCrossings, GridCells
from d2serve.masks.sampling import box_coordinates, ranges, sample

# Pixels of boxes in one block of columns: the block stays in the cache, and even if all of its
# pixels are ambiguous, their samples fit in memory.
BLOCK_PIXELS = 1 << 21
MIN_ROWS = 64
# Replaces a slope of zero.
MIN_SLOPE = 1e-12
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
    """Paste masks; returns their `Runs.bounds` and `Runs.offsets`.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents.
        boxes_xyxy: Float32[N, 4] in pixels; a box without area has no pixels.
        size_hw: height and width of the image.
        threshold: minimum probability of a set pixel.
        margin: distance to the threshold within which rounding may decide.
    """
    paster = _ColumnPaster(probabilities, boxes_xyxy, size_hw, threshold, margin)
    columns = paster.columns()
    states = [paster.states(columns[block]) for block in paster.blocks(columns)]
    pixels = np.concatenate([np.empty(0, dtype=np.int64), *(numbers for numbers, _ in states)])
    is_set = np.concatenate([np.empty(0, dtype=np.bool_), *(values for _, values in states)])
    bounds = _changes(pixels, is_set)
    first_pixels = np.arange(len(boxes_xyxy) + 1) * paster.stride
    offsets = np.searchsorted(bounds, first_pixels)
    return bounds - np.repeat(first_pixels[:-1], np.diff(offsets)), offsets


@dataclass(frozen=True)
class _Columns:
    """K pixel columns of masks.

    Attributes:
        masks: Int64[K] index of the mask.
        x: Int64[K] in the image.
        across: Float32[K] x in the mask's box, as in `box_coordinates`.
    """

    masks: Integers
    x: Integers
    across: Floats

    def __getitem__(self, chosen: slice | Booleans | Integers) -> "_Columns":
        return _Columns(self.masks[chosen], self.x[chosen], self.across[chosen])


class _ColumnPaster:
    """Determines the set pixels of masks, column by column.

    The pixels of mask n are numbered from n * `stride`, so that runs of two masks never touch.
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
        self.cells = GridCells(probabilities, threshold, margin)
        _, top, _, bottom = boxes_xyxy.astype(np.float64).T
        self.rows_per_cell = (bottom - top) / self.side
        # Row coordinate of the first node of each mask, on the frame.
        self.first_nodes = top - 0.5 - 0.5 * self.rows_per_cell

    def columns(self) -> _Columns:
        """The columns that may have set pixels, mask by mask, from the left."""
        starts, tops, ends, bottoms = self.boxes.T
        left = np.clip(np.floor(starts) - 1, 0, self.width).astype(np.int64)
        right = np.clip(np.ceil(ends) + 1, left, self.width).astype(np.int64)
        counts = (right - left) * ((starts < ends) & (tops < bottoms))
        masks, x = np.repeat(np.arange(len(counts)), counts), ranges(left, counts)
        across = box_coordinates(x, starts[masks], ends[masks])
        cells = self._in_cells(across)
        return _Columns(masks, x, across)[(cells > -1) & (cells < self.side)]

    def blocks(self, columns: _Columns) -> Iterator[slice]:
        """Split columns into blocks of about `BLOCK_PIXELS` pixels."""
        rows = np.clip(self.rows_per_cell * self.side, MIN_ROWS, max(self.height, MIN_ROWS))
        filled = np.cumsum(rows.take(columns.masks))
        most = filled[-1] if len(filled) else 0
        cuts = np.searchsorted(filled, np.arange(BLOCK_PIXELS, most, BLOCK_PIXELS)).tolist()
        return (slice(*ends) for ends in pairwise([0, *cuts, len(filled)]))

    def states(self, columns: _Columns) -> tuple[Integers, Booleans]:
        """The state of the pixels from certain pixels on.

        Returns:
            Int64[E] pixel numbers, ascending, and Bool[E] whether the pixels from there on are set.
            The last of several states of the same pixel applies.
        """
        crossings = self.cells.boundary_crossings(columns.masks, self._in_cells(columns.across))
        start, end = self._ambiguous_rows(columns.masks.take(crossings.column), crossings)
        tops = (columns.masks * self.stride + columns.x * self.height).take(crossings.column)
        ambiguous = np.flatnonzero(end > start)
        set_after = crossings.after >= np.float32(self.threshold)
        if not len(ambiguous):
            return tops + end, set_after
        lengths = (end - start).take(ambiguous)
        rows, ambiguous = ranges(start.take(ambiguous), lengths), np.repeat(ambiguous, lengths)
        sampled = self._sample(columns[crossings.column[ambiguous]], rows)
        return (
            np.insert(tops + end, ambiguous, tops[ambiguous] + rows),
            np.insert(set_after, ambiguous, sampled >= np.float32(self.threshold)),
        )

    def _in_cells(self, across: Floats) -> Floats:
        """Convert coordinates in boxes to grid cells, 0 at the first node inside the frame."""
        return (across + np.float32(1)) * np.float32(self.side / 2) - np.float32(0.5)

    def _ambiguous_rows(
        self, masks: Integers, crossings: BoundaryCrossings
    ) -> tuple[Integers, Integers]:
        """The first row that rounding may decide, and the first one after those."""
        before = crossings.before.astype(np.float64)
        slope = crossings.after - before
        slope[slope == 0] = MIN_SLOPE
        crossing = (self.threshold - before) / slope
        reach = np.abs(self.margin / slope)
        first, per_cell = self.first_nodes.take(masks), self.rows_per_cell.take(masks)
        ends = (np.maximum(crossing - reach, 0), np.minimum(crossing + reach, 1))
        # Summed in this order, a cell's lower side rounds like the next cell's upper side.
        start, end = (np.ceil(first + per_cell * (crossings.cell + share)) for share in ends)
        return self._rows(start), self._rows(end)

    def _rows(self, rows: Doubles) -> Integers:
        return np.minimum(np.maximum(rows, 0), self.height).astype(np.int64)

    def _sample(self, columns: _Columns, rows: Integers) -> Floats:
        _, tops, _, bottoms = self.boxes[columns.masks].T
        points = np.stack((columns.across, box_coordinates(rows, tops, bottoms)), axis=1)
        return sample(self.probabilities, columns.masks, points)


def _changes(pixels: Integers, is_set: Booleans) -> Integers:
    """The numbers of the pixels at which the state changes, starting with unset."""
    is_last = np.diff(pixels, append=-1) != 0
    pixels, is_set = pixels[is_last], is_set[is_last]
    return pixels[np.diff(is_set, prepend=False)]
