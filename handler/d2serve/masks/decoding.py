"""Read masks from COCO's run-length encoding or polygons: the inverse of `rle` and `polygons`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.masks.ranges import ranges
from d2serve.masks.rle import BITS_PER_CHARACTER, CONTINUATION_BIT, FIRST_CHARACTER
from d2serve.masks.runs import Runs, without_pairs

# Characters of one number: more would overflow 64 bits.
MAX_CHARACTERS = 12
Integers = npt.NDArray[np.int64]


def decode_rles(rles: Sequence[Mapping[str, Any]], size_hw: tuple[int, int]) -> Runs:
    """Read masks as `encode_rles` or `pycocotools.mask` writes them.

    Args:
        rles: {"size": [H, W], "counts": text} per mask; `counts` may be bytes or a list of lengths.
        size_hw: height and width of the image.

    Raises:
        ValueError: a mask has another size, or its lengths do not fill the image.

    Examples:
        >>> runs = decode_rles([{"size": [3, 4], "counts": "42102"}], (3, 4))
        >>> runs.bounds.tolist()
        [4, 6, 7, 9]
    """
    return Runs.of([_rle_bounds(rle, size_hw) for rle in rles], size_hw)


def decode_polygons(masks: Sequence[Sequence[Sequence[float]]], size_hw: tuple[int, int]) -> Runs:
    """Read masks as `encode_polygons` writes them.

    Args:
        masks: per mask its outlines [[x, y, x, y, ...], ...], whose points are corners of pixels
            and whose sides are vertical or horizontal.
        size_hw: height and width of the image.

    Raises:
        ValueError: an outline has other sides, or points outside the image.

    Examples:
        >>> decode_polygons([[[1, 1, 1, 3, 3, 3, 3, 1]]], (3, 4)).bounds.tolist()
        [4, 6, 7, 9]
    """
    return Runs.of([_polygon_bounds(outlines, size_hw) for outlines in masks], size_hw)


def _rle_bounds(rle: Mapping[str, Any], size_hw: tuple[int, int]) -> Integers:
    height, width = size_hw
    if list(rle["size"]) != [height, width]:
        raise ValueError(f"size of a mask is {rle['size']}; expected {[height, width]}")
    counts = rle["counts"]
    lengths = _decompress(counts) if isinstance(counts, str | bytes) else _as_lengths(counts)
    pixels = height * width
    # Longer runs are rejected before they are added, which could overflow.
    is_valid = len(lengths) > 0 and lengths.min() >= 0 and lengths.max() <= pixels
    if not is_valid or lengths.sum() != pixels:
        raise ValueError(
            f"counts of a mask do not add up to the {pixels} pixels of {width}x{height}"
        )
    ends = np.cumsum(lengths)
    # The runs alternate; the last bound of an unset run is the image's end.
    # Without empty runs, and with those joined that touch.
    return without_pairs(ends[: len(ends) - len(ends) % 2])


def _as_lengths(counts: Any) -> Integers:
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise ValueError(f"counts of a mask is {counts!r:.60}; expected text or a list of integers")
    return lengths.astype(np.int64)


def _decompress(text: str | bytes) -> Integers:
    """Int64[R] run lengths; see `rle.compress`."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    characters = np.frombuffer(raw, np.uint8).astype(np.int64) - FIRST_CHARACTER
    if characters.size and not 0 <= characters.min() <= characters.max() < 2 * CONTINUATION_BIT:
        raise ValueError("counts of a mask contains a character that compressed RLE does not have")
    lasts = np.flatnonzero(characters < CONTINUATION_BIT)
    if characters.size and (not lasts.size or lasts[-1] != len(characters) - 1):
        raise ValueError("counts of a mask ends within a number")
    firsts = np.concatenate(([0], lasts[:-1] + 1)).astype(np.int64)[: len(lasts)]
    sizes = lasts - firsts + 1
    if sizes.size and sizes.max() > MAX_CHARACTERS:
        raise ValueError(f"counts of a mask has a number of {sizes.max()} characters")
    places = np.arange(len(characters)) - np.repeat(firsts, sizes)
    bits = (characters & (CONTINUATION_BIT - 1)) << (BITS_PER_CHARACTER * places)
    values = np.add.reduceat(bits, firsts) if len(firsts) else np.zeros(0, np.int64)
    is_negative = (characters[lasts] & (CONTINUATION_BIT >> 1)) > 0
    values -= is_negative.astype(np.int64) << (BITS_PER_CHARACTER * sizes)
    # From the fourth on, a value is the difference to the length two runs before.
    for chain in (values[1::2], values[2::2]):
        np.cumsum(chain, out=chain)
    return values


def _polygon_bounds(outlines: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Integers:
    """Down a column of pixels, a run starts or ends at each horizontal side that it crosses."""
    height, width = size_hw
    bounds: list[Integers] = [np.zeros(0, np.int64)]
    for outline in outlines:
        given = np.asarray(outline, np.float64).reshape(-1, 2)
        if not ((given >= 0) & (given <= (width, height))).all():
            raise ValueError(f"a polygon has a point outside the image of {width}x{height}")
        points = given.astype(np.int64)
        sides = np.roll(points, -1, axis=0) - points
        if (points != given).any() or (sides != 0).all(axis=1).any():
            raise ValueError("a polygon has sides that are not along pixels; expected outlines")
        x, y = points.T
        lengths = np.abs(sides[:, 0])
        columns = ranges(np.minimum(x, x + sides[:, 0]), lengths)
        bounds.append(columns * height + np.repeat(y, lengths))
    return without_pairs(np.sort(np.concatenate(bounds)))
