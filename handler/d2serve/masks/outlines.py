"""Encode the masks of an image as COCO polygons, traced along their runs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import regions
from d2serve.masks.polygons import encode_polygons
from d2serve.masks.ranges import ranges
from d2serve.masks.runs import Runs, serialized

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@serialized
def encode_outlines(runs: Runs) -> list[list[list[int]]]:
    """Encode each mask as `encode_polygons` does, all masks together.

    Each run of pixels has two edges, at its top and at its bottom. Between two columns, the ends of
    edges from both sides, sorted from the top, are the ends of vertical edges, two and two. So each
    edge has a next one, and outlines are the cycles. The few masks that have holes and several
    outlines are encoded one by one.
    """
    outlines, is_valid = _trace(runs)
    polygons: list[list[list[int]]] = [[] for _ in range(len(runs))]
    numbers, ends = outlines.corners.ravel().tolist(), pairwise((2 * outlines.offsets).tolist())
    for mask, (start, end) in zip(outlines.masks.tolist(), ends, strict=True):
        polygons[mask].append(numbers[start:end])
    others = np.flatnonzero(~is_valid).tolist()
    for mask, region in zip(others, regions(runs.select(others)), strict=True):
        polygons[mask] = encode_polygons(region)
    return polygons


@dataclass(frozen=True)
class _Outlines:
    """C outlines with V corners.

    Attributes:
        corners: Int64[V, 2] x, y, in the order of the outlines.
        offsets: Int64[C + 1] the start of each outline in `corners`, and V.
        masks: Int64[C], ascending.
    """

    corners: Integers
    offsets: Integers
    masks: Integers


def _trace(runs: Runs) -> tuple[_Outlines, Booleans]:
    """The outlines of masks, and Bool[N] the masks for which they are valid: those without runs of
    several columns, that have a single outline or no holes."""
    height, width = runs.size_hw
    masks = np.repeat(np.arange(len(runs)), np.diff(runs.offsets))
    # Edges alternate: the top and the bottom of each run. A bottom is in the column of its top.
    columns = np.repeat(runs.bounds[::2] // height, 2)
    rows = runs.bounds - columns * height
    is_bottom = np.arange(len(rows)) % 2
    points = (masks * (width + 2) + columns) * (height + 1) + rows
    order, offsets = _cycles(_next_edges(points * 2 + is_bottom, (height + 1) * 2))
    owners = masks[order[offsets[:-1]]]
    signed = np.where(is_bottom > 0, rows, -rows)[order]
    areas = np.add.reduceat(signed, offsets[:-1]) if len(order) else signed
    # Around a hole, the order of the edges is reversed. Holes may contain further outlines.
    is_outer = areas > 0
    is_valid = np.bincount(owners[is_outer], minlength=len(runs)) < 2
    is_valid |= np.bincount(owners[~is_outer], minlength=len(runs)) == 0
    is_valid[masks[rows > height]] = False
    kept, lengths = is_valid[owners] & is_outer, np.diff(offsets)
    order, offsets = order[np.repeat(kept, lengths)], _starts(lengths[kept])
    # A top ends at the right of its column.
    corners, offsets = _corners((columns + 1 - is_bottom)[order], rows[order], offsets)
    return _in_order(_Outlines(corners, offsets, owners[kept]), width + 1), is_valid


def _starts(lengths: Integers) -> Integers:
    """Int64[K + 1]: the starts of sequences of these lengths, and the sum."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))


def _next_edges(keys: Integers, column: int) -> Integers:
    """Int64[E]: the edge that follows each edge, clockwise: tops to the right, bottoms to the left.

    Args:
        keys: Int64[E], number of an edge's left end, ascending from the top within a column; tops
            before bottoms at the same point, so that pixels which touch at a corner are joined.
        column: distance of these numbers from one column to the next.
    """
    count = len(keys)
    ends = np.argsort(np.concatenate((keys, keys + column)), kind="stable").reshape(-1, 2)
    partner = np.empty(2 * count, dtype=np.int64)
    partner[ends[:, 0]], partner[ends[:, 1]] = ends[:, 1], ends[:, 0]
    following = np.empty(count, dtype=np.int64)
    following[::2], following[1::2] = partner[count::2], partner[1:count:2]
    return following % max(count, 1)


def _cycles(following: Integers) -> tuple[Integers, Integers]:
    """The edges of each cycle in order, and Int64[C + 1] the start of each cycle in them."""
    count = len(following)
    # Tops from the left, then bottoms from the right: most edges follow the one before.
    lined_up = np.concatenate((np.arange(0, count, 2), np.arange(count - 1, 0, -2)))
    place = np.empty(count, dtype=np.int64)
    place[lined_up] = np.arange(count)
    next_place = place[following[lined_up]]
    is_last = next_place != np.arange(1, count + 1)
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate(([0], lasts + 1))[: len(lasts)]
    chain = np.cumsum(is_last) - is_last
    chains, starts = _visit(chain[next_place[lasts]].tolist())
    lengths = (lasts - firsts + 1)[chains]
    return lined_up[ranges(firsts[chains], lengths)], _starts(lengths)[[*starts, len(chains)]]


def _visit(following: list[int]) -> tuple[list[int], list[int]]:
    """All numbers cycle by cycle, and the start of each cycle."""
    order: list[int] = []
    starts: list[int] = []
    is_new = [True] * len(following)
    for first in range(len(following)):
        if is_new[first]:
            starts.append(len(order))
        number = first
        while is_new[number]:
            is_new[number] = False
            order.append(number)
            number = following[number]
    return order, starts


def _corners(x: Integers, y: Integers, offsets: Integers) -> tuple[Integers, Integers]:
    """The corners of cycles of edges, where the next edge is in another row.

    Args:
        x: Int64[E] the end of each edge.
        y: Int64[E] the row of each edge.
        offsets: Int64[C + 1] the start of each cycle, and E.

    Returns:
        Int64[V, 2] x, y, and Int64[C + 1] the start of each cycle in them, and V.
    """
    next_y = np.empty_like(y)
    next_y[:-1] = y[1:]
    next_y[offsets[1:] - 1] = y[offsets[:-1]]
    turns = np.flatnonzero(y != next_y)
    corners = np.stack((x[turns], y[turns], x[turns], next_y[turns]), axis=1).reshape(-1, 2)
    return corners, 2 * np.searchsorted(turns, offsets)


def _in_order(outlines: _Outlines, stride: int) -> _Outlines:
    """Let each outline start at its highest corner, the left one of several, and go down; order the
    outlines of a mask from the lowest start. A row has fewer than `stride` points."""
    corners, offsets, masks = outlines.corners, outlines.offsets, outlines.masks
    if not len(corners):
        return outlines
    lengths = np.diff(offsets)
    numbers = corners[:, 1] * stride + corners[:, 0]
    least = np.minimum.reduceat(numbers, offsets[:-1])
    starts = np.flatnonzero(numbers == np.repeat(least, lengths)) - offsets[:-1]
    chosen = np.lexsort((-least, masks))
    firsts, lengths = offsets[:-1][chosen], lengths[chosen]
    places = np.repeat(starts[chosen], lengths) - ranges(np.zeros_like(lengths), lengths)
    places += np.repeat(lengths, lengths) * (places < 0) + np.repeat(firsts, lengths)
    return _Outlines(corners[places], _starts(lengths), masks[chosen])
