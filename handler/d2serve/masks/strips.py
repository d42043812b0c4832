"""Runs of pixels -> strips: runs of successive columns whose edges lie beside each other."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d2serve.masks.ranges import ranges
from d2serve.masks.runs import Runs

Integers = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Strips:
    """R runs, each within one column, ordered such that the runs of a strip follow each other.

    A run touches the next one of its strip, at least at a corner, and between the two columns
    neither of them touches another run. So an outline that passes the top, or the bottom, of one
    run of a strip passes all of them.

    Attributes:
        masks: Int64[R] index of the mask.
        columns: Int32[R] x.
        tops: Int32[R] y of the first pixel.
        bottoms: Int32[R] y after the last pixel.
        firsts: Int64[S] the first run of each strip.
    """

    masks: Integers
    columns: Int32s
    tops: Int32s
    bottoms: Int32s
    firsts: Integers


def strips_of(runs: Runs) -> Strips:
    """Cut runs that continue in the next column, and find the strips.

    Runs are ordered by their place in the column, counted from the top, then by mask and column.
    """
    height, width = runs.size_hw
    masks, columns, tops, bottoms = _cut(runs)
    lines = masks * (width + 1) + columns
    has_neighbour = lines[1:] == lines[:-1]
    # The end of the run above and the start of the run below in the same column.
    above, below = np.full_like(tops, -1), np.full_like(tops, height + 1)
    np.copyto(above[1:], bottoms[:-1], where=has_neighbour)
    np.copyto(below[:-1], tops[1:], where=has_neighbour)
    if has_neighbour.any():
        order = _places(has_neighbour).argsort(kind="stable")
        masks, columns, lines = masks[order], columns[order], lines[order]
        tops, bottoms, above, below = tops[order], bottoms[order], above[order], below[order]
    continues = lines[1:] == lines[:-1] + 1
    continues &= _later(tops) <= _earlier(bottoms)
    continues &= _later(above) < _earlier(tops)
    continues &= _later(bottoms) < _earlier(below)
    firsts = np.flatnonzero(np.concatenate(([True], ~continues))[: len(lines)])
    return Strips(masks, columns, tops, bottoms, firsts)


def _cut(runs: Runs) -> tuple[Integers, Int32s, Int32s, Int32s]:
    """The masks, columns, tops and bottoms of the parts of runs in each column."""
    height, _ = runs.size_hw
    masks = np.repeat(np.arange(len(runs)), np.diff(runs.offsets) // 2)
    starts = runs.bounds[::2]
    columns = starts // height
    tops = starts - columns * height
    bottoms = tops + (runs.bounds[1::2] - starts)
    if bottoms.max(initial=0) > height:
        counts = -(-bottoms // height)
        numbers = ranges(np.zeros_like(counts), counts)
        masks, columns = np.repeat(masks, counts), np.repeat(columns, counts) + numbers
        tops = np.where(numbers > 0, 0, np.repeat(tops, counts))
        bottoms = np.minimum(np.repeat(bottoms, counts) - numbers * height, height)
    return masks, columns.astype(np.int32), tops.astype(np.int32), bottoms.astype(np.int32)


def _places(has_neighbour: Booleans) -> npt.NDArray[np.int16]:
    """Int16[R]: how many runs are above each run in its column.

    Short integers are sorted faster. Where they overflow, strips may be shorter.

    Args:
        has_neighbour: Bool[R - 1], true for a run whose next one is in the same column.
    """
    count = len(has_neighbour) + 1
    firsts = np.flatnonzero(np.concatenate(([True], ~has_neighbour)))
    places = np.arange(count) - np.repeat(firsts, np.diff(firsts, append=count))
    return places.astype(np.int16)


def _earlier(values: Int32s) -> Int32s:
    """Int32[R - 1]: the lesser of each value and the next one."""
    return np.minimum(values[1:], values[:-1])


def _later(values: Int32s) -> Int32s:
    """Int32[R - 1]: the greater of each value and the next one."""
    return np.maximum(values[1:], values[:-1])
