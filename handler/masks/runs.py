"""Mask probabilities over boxes -> the runs of set pixels in the picture, without its pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from handler.masks.dense import paste_densely
from handler.masks.sampling import box_coordinates, sample

THRESHOLD = 0.5
# What rounding can move a sampled probability by, for each cell along a side of the mask.
MARGIN_PER_CELL = 2e-6
# Small enough for the cache; so many pixels of boxes, were they all to be sampled, fit in memory.
BLOCK_PIXELS = 1 << 21
LEAST_ROWS = 64
# Pixels of one mask that are singled out at most, about.
MOST_DOUBTS = 1 << 16
# In place of a line's rise of nothing.
NO_RISE = 1e-12

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Runs:
    """The set pixels of N masks of one picture, as stretches of its columns.

    Pixel (x, y) is number x * H + y: down the columns, from the top left.

    Attributes:
        bounds: Int64[R], for one mask after the other the number of the first pixel of a run and
            of the first after it, in turn. Those of a mask rise: its runs neither touch nor are
            empty.
        offsets: Int64[N + 1], where in `bounds` each mask begins, and at last R.
        size_hw: height and width of the picture.
    """

    bounds: Integers
    offsets: Integers
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Integers]:
        """Each mask's bounds."""
        return (self.bounds[start:end] for start, end in pairwise(self.offsets.tolist()))

    def with_mask(self, mask: int, bounds: Integers) -> "Runs":
        """With the runs of a mask that has none."""
        offsets = self.offsets.copy()
        offsets[mask + 1 :] += len(bounds)
        return Runs(np.insert(self.bounds, self.offsets[mask], bounds), offsets, self.size_hw)


def paste_runs(probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Runs:
    """Resamples masks from their boxes to the picture's pixels, bilinear, at least 0.5 is set.

    Bit for bit the pixels of `detectron2.layers.mask_ops.paste_masks_in_image` on a CPU, in time
    that grows with the width of the boxes and not with their area: within a column of pixels the
    probability is a broken line, with a knot at the middle of each row of the mask's cells. So

    1. the knots of every column are interpolated between the two nearest columns of cells;
    2. between knots on either side of 0.5 a division says where a run begins or ends;
    3. a pixel so near 0.5 that rounding decides is sampled in the very steps of Detectron2.

    The columns of all masks take each step together, in blocks that stay in the cache. Only a mask
    of which rounding decides very many pixels is sampled as a whole.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents; NaN counts as 0.
        boxes_xyxy: Float32[N, 4] in pixels, x1 <= x2 and y1 <= y2. What lies outside the picture
            is cut off; a box without width or height has no pixels.
        size_hw: height and width of the picture.
    """
    dense = _dense(probabilities, boxes_xyxy, size_hw)
    # An empty box has no pixels.
    others = np.where(dense[:, None], np.float32(0), boxes_xyxy)
    runs = _paste_by_columns(probabilities, others, size_hw)
    for mask in np.flatnonzero(dense):
        own = paste_densely(probabilities[mask], boxes_xyxy[mask], size_hw, THRESHOLD)
        runs = runs.with_mask(mask, own)
    return runs


def _paste_by_columns(probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Runs:
    pasting = _Pasting(probabilities, boxes_xyxy, size_hw)
    columns = pasting.columns()
    events = [pasting.events(columns[block]) for block in pasting.blocks(columns)]
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *(number for number, _ in events)])
    states = np.concatenate([np.empty(0, dtype=np.bool_), *(state for _, state in events)])
    bounds = _changes(numbers, states)
    first_pixels = np.arange(len(boxes_xyxy) + 1) * pasting.stride
    offsets = np.searchsorted(bounds, first_pixels)
    return Runs(bounds - np.repeat(first_pixels[:-1], np.diff(offsets)), offsets, size_hw)


def _dense(probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Booleans:
    """Bool[N]: of which masks rounding decides more pixels than are worth singling out."""
    side = probabilities.shape[-1]
    doubtful = np.abs(probabilities - np.float32(THRESHOLD)) <= MARGIN_PER_CELL * side
    shares = doubtful.sum(axis=(1, 2)) / max(1, side * side)
    height, width = size_hw
    inside = np.clip(boxes_xyxy.astype(np.float64), 0, (width, height, width, height))
    areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    dense: Booleans = shares * areas > MOST_DOUBTS
    return dense


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

    def __init__(self, probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> None:
        probabilities = np.nan_to_num(probabilities, nan=0.0)
        self.probabilities = probabilities
        self.boxes = boxes_xyxy
        self.height, self.width = size_hw
        self.stride = self.height * self.width + 1
        self.side = probabilities.shape[-1]
        self.margin = MARGIN_PER_CELL * self.side
        # Around the mask is a frame of zeros; a line is a column of cells.
        framed = np.pad(probabilities, ((0, 0), (1, 1), (1, 1))).transpose(0, 2, 1)
        self.lines = np.ascontiguousarray(framed).reshape(-1, self.side + 2)
        self.steps = np.diff(self.lines, axis=0, append=np.float32(0))
        _, top, _, bottom = boxes_xyxy.astype(np.float64).T
        self.rows_per_cell = (bottom - top) / self.side
        self.first_knots = top - 0.5 - 0.5 * self.rows_per_cell

    def columns(self) -> _Columns:
        """Those of all masks that may have set pixels, mask by mask, from the left."""
        starts, tops, ends, bottoms = self.boxes.T
        left = np.clip(np.floor(starts) - 1, 0, self.width).astype(np.int64)
        right = np.clip(np.ceil(ends) + 1, left, self.width).astype(np.int64)
        counts = (right - left) * ((starts < ends) & (tops < bottoms))
        masks = np.repeat(np.arange(len(counts)), counts)
        x = np.arange(len(masks)) + np.repeat(left - np.cumsum(counts) + counts, counts)
        across = box_coordinates(x, starts[masks], ends[masks])
        cells = self._cells(across)
        return _Columns(masks, x, across)[(cells > -1) & (cells < self.side)]

    def blocks(self, columns: _Columns) -> Iterator[slice]:
        """Neighbouring columns of about `BLOCK_PIXELS` together."""
        rows = np.clip(self.rows_per_cell * self.side, LEAST_ROWS, max(self.height, LEAST_ROWS))
        filled = np.cumsum(rows[columns.masks]) // BLOCK_PIXELS
        cuts = (np.flatnonzero(np.diff(filled)) + 1).tolist()
        return (slice(*ends) for ends in pairwise([0, *cuts, len(filled)]))

    def events(self, columns: _Columns) -> tuple[Integers, Booleans]:
        """Int64[E] numbers of pixels, never falling, and Bool[E], whether pixels are set from
        there on; of several that say so of one pixel the last holds."""
        knots = self._knots(columns).ravel()
        undecided = self._undecided(knots)
        column, interval = np.divmod(undecided, self.side + 2)
        before, after = (knots.take(undecided + end).astype(np.float64) for end in (0, 1))
        start, end = self._doubtful_rows(columns.masks[column], interval, before, after)
        tops = columns.masks[column] * self.stride + columns.x[column] * self.height
        doubts = np.repeat(np.arange(len(column)), end - start)
        if not len(doubts):
            return tops + end, after >= THRESHOLD
        lengths = end - start
        rows = np.arange(len(doubts)) + np.repeat(start - np.cumsum(lengths) + lengths, lengths)
        sampled = self._sample(columns[column[doubts]], rows)
        return (
            np.insert(tops + end, doubts, tops[doubts] + rows),
            np.insert(after >= THRESHOLD, doubts, sampled >= THRESHOLD),
        )

    def _cells(self, across: Floats) -> Floats:
        """Where coordinates in boxes are among cells, 0 the middle of the first."""
        return (across + np.float32(1)) * np.float32(self.side / 2) - np.float32(0.5)

    def _knots(self, columns: _Columns) -> Floats:
        """Float32[K, M + 2]: the probabilities where a column passes the middles of cells."""
        cells = self._cells(columns.across)
        first = np.floor(cells)
        line = columns.masks * (self.side + 2) + first.astype(np.int64) + 1
        knots = self.steps.take(line, axis=0)
        knots *= (cells - first)[:, None]
        knots += self.lines.take(line, axis=0)
        return knots

    def _undecided(self, knots: Floats) -> Integers:
        """Of Float32[K * (M + 2)], one column after the other, those up to whose next one 0.5 is
        crossed or comes near. A column's last one is 0, as is the next one's first."""
        may = knots >= THRESHOLD - self.margin
        must = knots >= THRESHOLD + self.margin
        somewhere = may[1:] | may[:-1]
        everywhere = must[1:] & must[:-1]
        return np.flatnonzero(somewhere ^ everywhere)

    def _doubtful_rows(
        self, masks: Integers, interval: Integers, before: Doubles, after: Doubles
    ) -> tuple[Integers, Integers]:
        """The first row for which rounding may decide, and the first after those."""
        rise = after - before
        rise[rise == 0] = NO_RISE
        crossing = (THRESHOLD - before) / rise
        reach = np.abs(self.margin / rise)
        first, per_cell = self.first_knots[masks], self.rows_per_cell[masks]
        ends = (np.maximum(crossing - reach, 0), np.minimum(crossing + reach, 1))
        start, end = (np.ceil(first + per_cell * (interval + share)) for share in ends)
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
