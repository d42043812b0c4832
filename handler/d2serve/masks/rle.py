"""Encode masks as COCO's compressed run-length encoding (the format of `pycocotools.mask`)."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2serve.masks.runs import Runs, serialized

BITS_PER_CHARACTER = 5
CONTINUATION_BIT = 1 << BITS_PER_CHARACTER
FIRST_CHARACTER = 48
Integers = npt.NDArray[np.int64]


@serialized
def encode_rles(runs: Runs) -> list[dict[str, object]]:
    """Encode each mask as {"size": [H, W], "counts": text}."""
    counts, offsets = run_lengths(runs)
    texts = compress(counts, offsets)
    return [{"size": list(runs.size_hw), "counts": text} for text in texts]


def run_lengths(runs: Runs) -> tuple[Integers, Integers]:
    """Lengths of alternating unset and set runs, down the columns, from the top left.

    Returns:
        Int64[R] lengths, one mask after the other, and Int64[N + 1] the start of each mask in
        them, and R.
    """
    height, width = runs.size_hw
    ends = np.insert(runs.bounds, runs.offsets[1:], height * width)
    offsets = runs.offsets + np.arange(len(runs.offsets))
    lengths = np.diff(ends, prepend=0)
    lengths[offsets[:-1]] = ends[offsets[:-1]]
    # A mask that contains the image's last pixel ends with an empty unset run, which COCO omits;
    # an empty run at the start remains.
    empty = offsets[1:][lengths[offsets[1:] - 1] == 0] - 1
    return np.delete(lengths, empty), offsets - np.searchsorted(empty, offsets)


def compress(counts: Integers, offsets: Integers) -> list[str]:
    """Encode run lengths as COCO's text: differences to the length two runs before, 5 bits each.

    Args:
        counts: Int64[R] run lengths, one mask after the other.
        offsets: Int64[N + 1] the start of each mask in `counts`, and R.
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
    """UInt8[C] characters, a value's lowest bits first, and Int64[K + 1] the start of each value in
    them, and C."""
    lengths = _character_counts(values)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    characters = np.empty(starts[-1], dtype=np.uint8)
    positions, remaining = starts[:-1], lengths
    while len(positions):
        continues = remaining > 1
        bits = values & (CONTINUATION_BIT - 1)
        characters[positions] = bits + FIRST_CHARACTER + CONTINUATION_BIT * continues
        values, positions, remaining = (
            values[continues] >> BITS_PER_CHARACTER,
            positions[continues] + 1,
            remaining[continues] - 1,
        )
    return characters, starts


def _character_counts(values: Integers) -> Integers:
    """The number of characters for the bits of each value and its sign."""
    magnitudes = values ^ (values >> 63)
    counts = np.ones(len(values), dtype=np.int64)
    limit = 1 << (BITS_PER_CHARACTER - 1)
    while (larger := magnitudes >= limit).any():
        counts += larger
        limit <<= BITS_PER_CHARACTER
    return counts
