"""COCO's run-length encoding of masks (the format of `pycocotools.mask`)."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.runs import Runs, in_turn

BITS_PER_CHARACTER = 5
MORE_FOLLOWS = 1 << BITS_PER_CHARACTER
FIRST_CHARACTER = 48
Integers = npt.NDArray[np.int64]


@in_turn
def encode_rles(runs: Runs) -> list[dict[str, object]]:
    """Each mask's compressed RLE: {"size": [H, W], "counts": text}."""
    counts, offsets = run_lengths(runs)
    texts = compress(counts, offsets)
    return [{"size": list(runs.size_hw), "counts": text} for text in texts]


def run_lengths(runs: Runs) -> tuple[Integers, Integers]:
    """Lengths of unset and set runs in turn, down the columns, from the top left.

    Returns:
        Int64[R], those of one mask after the other, and Int64[N + 1] where each mask's begin, and
        at last R.
    """
    height, width = runs.size_hw
    ends = np.insert(runs.bounds, runs.offsets[1:], height * width)
    offsets = runs.offsets + np.arange(len(runs.offsets))
    lengths = np.diff(ends, prepend=0)
    lengths[offsets[:-1]] = ends[offsets[:-1]]
    # Of a mask with the picture's last pixel nothing is left. A length of 0 at the start stays.
    over = offsets[1:][lengths[offsets[1:] - 1] == 0] - 1
    return np.delete(lengths, over), offsets - np.searchsorted(over, offsets)


def compress(counts: Integers, offsets: Integers) -> list[str]:
    """COCO's text form of each mask: differences to the count before last, five bits a character.

    Args:
        counts: Int64[R], one mask after the other.
        offsets: Int64[N + 1], where each mask's begin, and at last R.
    """
    values = counts.copy()
    values[2:] -= counts[:-2]
    firsts: Integers = (offsets[:-1, None] + np.arange(3)).ravel()
    firsts = firsts[firsts < np.repeat(offsets[1:], 3)]
    values[firsts] = counts[firsts]
    characters, starts = _characters(values)
    text = characters.tobytes().decode("ascii")
    return [text[start:end] for start, end in pairwise(starts[offsets].tolist())]


def _characters(values: Integers) -> tuple[npt.NDArray[np.uint8], Integers]:
    """UInt8[C] characters, those of a value from its lowest bits on, and Int64[K + 1] where each
    value's begin, and at last C."""
    lengths = _character_counts(values)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    characters = np.empty(starts[-1], dtype=np.uint8)
    places, left = starts[:-1], lengths
    while len(places):
        goes_on = left > 1
        bits = values & (MORE_FOLLOWS - 1)
        characters[places] = bits + FIRST_CHARACTER + MORE_FOLLOWS * goes_on
        values, places, left = (
            values[goes_on] >> BITS_PER_CHARACTER,
            places[goes_on] + 1,
            left[goes_on] - 1,
        )
    return characters, starts


def _character_counts(values: Integers) -> Integers:
    """How many characters hold the bits of each value and its sign."""
    magnitudes = values ^ (values >> 63)
    counts = np.ones(len(values), dtype=np.int64)
    limit = 1 << (BITS_PER_CHARACTER - 1)
    while (larger := magnitudes >= limit).any():
        counts += larger
        limit <<= BITS_PER_CHARACTER
    return counts
