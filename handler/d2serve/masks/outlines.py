"""Encode the masks of an image as COCO polygons, traced along their runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import regions
from d2serve.masks.polygons import encode_polygons
from d2serve.masks.ranges import ranges
from d2serve.masks.runs import Runs, serialized
from d2serve.masks.strips import Int32s, Strips, strips_of

Integers = npt.NDArray[np.int64]


@serialized
def encode_outlines(runs: Runs) -> list[list[list[int]]]:
    """Encode each mask as `encode_polygons` does, all masks together.

    Each run of pixels has two edges, at its top and at its bottom. Between two columns, the ends of
    edges from both sides, sorted from the top, are the ends of vertical edges, two and two. So each
    edge has a next one, and outlines are the cycles. Within a strip of runs, the next edge is that
    of the next run. The few masks that have holes and several outlines are encoded one by one.
    """
    polygons: list[list[list[int]]] = [[] for _ in range(len(runs))]
    if not len(runs.bounds):
        return polygons
    chains = _chains(strips_of(runs), runs.size_hw)
    order, starts = _visit(chains.following.tolist(), chains.candidates.tolist())
    visited, offsets = np.array(order), np.array([*starts, len(order)])
    masks, lengths = chains.masks[visited[offsets[:-1]]], np.diff(offsets)
    # Around a hole, the order of the edges is reversed. Holes may contain further outlines.
    is_outer = np.add.reduceat(chains.areas[visited], offsets[:-1]) > 0
    is_valid = np.bincount(masks[is_outer], minlength=len(runs)) < 2
    is_valid |= np.bincount(masks[~is_outer], minlength=len(runs)) == 0
    kept = is_valid[masks] & is_outer
    found = _polygons(chains, visited[np.repeat(kept, lengths)], lengths[kept])
    # `encode_polygons` begins with the lowest outline.
    for mask, polygon in zip(masks[kept][::-1].tolist(), found[::-1], strict=True):
        polygons[mask].append(polygon)
    others = np.flatnonzero(~is_valid).tolist()
    for mask, region in zip(others, regions(runs.select(others)), strict=True):
        polygons[mask] = encode_polygons(region)
    return polygons


@dataclass(frozen=True)
class _Chains:
    """C chains of E edges in all: the bottoms of each strip's runs to the right, and the tops to
    the left, up to the highest one and from there.

    Attributes:
        x: Int32[E] the end of each edge.
        y: Int32[E] the row of each edge.
        starts: Int64[C] the first edge of each chain.
        following: Int64[C] the chain after each one.
        candidates: Int64[S] the chain that starts with the highest top of each strip, the left one
            of several, in the order of these tops from above, and from the left.
        masks: Int64[C].
        areas: Int64[C] sum of the rows, negative for tops.
    """

    x: Int32s
    y: Int32s
    starts: Integers
    following: Integers
    candidates: Integers
    masks: Integers
    areas: Integers


def _chains(strips: Strips, size_hw: tuple[int, int]) -> _Chains:
    columns, tops, bottoms = strips.columns, strips.tops, strips.bottoms
    count, firsts = len(tops), strips.firsts
    lasts = np.append(firsts[1:], count) - 1
    highest = np.minimum.reduceat(tops * np.int64(count) + np.arange(count), firsts) % count
    # Tops are in reverse order, after the bottoms.
    begins = np.concatenate((firsts, 2 * count - 1 - lasts, 2 * count - 1 - highest))
    is_start = np.zeros(2 * count, np.bool_)
    is_start[begins] = True
    starts = np.flatnonzero(is_start)
    of_bottoms, of_tops, of_highest = np.searchsorted(starts, begins).reshape(3, -1)
    following = np.arange(1, len(starts) + 1)
    entered = np.concatenate((of_bottoms, of_tops))[_entered(strips, firsts, lasts, size_hw)]
    following[np.concatenate((of_bottoms, of_highest))] = entered
    y = np.concatenate((bottoms, tops[::-1]))
    is_top = starts >= count
    areas = np.add.reduceat(y, starts, dtype=np.int64) * np.where(is_top, -1, 1)
    masks = strips.masks[np.where(is_top, 2 * count - 1 - starts, starts)]
    candidates = of_highest[np.lexsort((columns[highest], tops[highest]))]
    x = np.concatenate((columns + 1, columns[::-1]))
    return _Chains(x, y, starts, following, candidates, masks, areas)


def _entered(
    strips: Strips, firsts: Integers, lasts: Integers, size_hw: tuple[int, int]
) -> Integers:
    """Int64[2S]: where outlines go that leave a strip, at its last bottom and at its first top: the
    index of the strip that they enter at its first bottom, or S + the index of the strip that they
    enter at its last top."""
    height, width = size_hw
    bottoms, tops = strips.bottoms, strips.tops
    rows = np.stack((bottoms[firsts], tops[lasts], bottoms[lasts], tops[firsts]))
    left, right = ((strips.masks * (width + 2) + strips.columns)[each] for each in (firsts, lasts))
    lines = np.stack((left, right + 1, right + 1, left))
    # Tops are before bottoms at the same point, so that pixels which touch at a corner are joined.
    keys = (lines * (height + 1) + rows) * 2 + np.array([[1], [0], [1], [0]])
    pairs = keys.ravel().argsort().reshape(-1, 2)
    partners = np.empty(keys.size, np.int64)
    partners[pairs] = pairs[:, ::-1]
    return partners[keys.size // 2 :]


def _visit(following: list[int], candidates: list[int]) -> tuple[list[int], list[int]]:
    """All numbers cycle by cycle, each from its first candidate, and the start of each cycle."""
    order: list[int] = []
    starts: list[int] = []
    is_new = [True] * len(following)
    for number in candidates:
        if is_new[number]:
            starts.append(len(order))
        while is_new[number]:
            is_new[number] = False
            order.append(number)
            number = following[number]
    return order, starts


def _polygons(chains: _Chains, visited: Integers, lengths: Integers) -> list[list[int]]:
    """The corners of outlines, where the next edge is in another row.

    Args:
        chains: the chains of edges.
        visited: Int64[K] chains of one outline after the other.
        lengths: Int64[C] number of chains of each outline.
    """
    x, y = chains.x, chains.y
    next_y = np.empty_like(y)
    next_y[:-1] = y[1:]
    next_y[np.append(chains.starts[1:], len(y)) - 1] = y[chains.starts[chains.following]]
    turns = np.flatnonzero(y != next_y)
    offsets = np.searchsorted(turns, np.append(chains.starts, len(y)))
    counts = np.diff(offsets)[visited]
    turns = turns[ranges(offsets[visited], counts)]
    corners = np.empty((len(turns), 4), np.int64)
    corners[:, 0] = corners[:, 2] = x[turns]
    corners[:, 1], corners[:, 3] = y[turns], next_y[turns]
    ends = 4 * np.cumsum(counts)[np.cumsum(lengths) - 1]
    return list(_lists(corners.ravel(), [0, *ends.tolist()]))


def _lists(values: Integers, offsets: list[int]) -> Iterator[list[int]]:
    """Lists of small numbers. Each number exists once: faster than `tolist` of integers."""
    numbers = np.arange(values.max(initial=0) + 1).astype(object)
    for start, end in pairwise(offsets):
        yield numbers.take(values[start:end]).tolist()
