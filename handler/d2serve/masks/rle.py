"""Encode masks as COCO's compressed run-length encoding (the format of `pycocotools.mask`)."""

from collections.abc import Iterator, Sequence
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
    parts = list(_characters(values))
    places = _places([indices for _, indices in parts], len(values))
    text = np.empty(places[-1], np.uint8)
    for number, (characters, indices) in enumerate(parts):
        text[places[indices] + number] = characters
    texts = text.tobytes().decode("ascii")
    return [texts[start:end] for start, end in pairwise(places[offsets].tolist())]


def _places(indices: Sequence[Integers], count: int) -> Integers:
    """Int64[count + 1]: where the characters of each value start, and the number of all.

    Args:
        indices: of the values that have a first character, a second one, and so on.
        count: number of values.
    """
    places: Integers = np.ones(count + 1, np.int64)
    places[0] = 0
    for number, some in enumerate(indices[1:], start=2):
        places[some + 1] = number
    return np.cumsum(places, out=places)


def _characters(values: Integers) -> Iterator[tuple[npt.NDArray[np.uint8], Integers]]:
    """The first character of each value, then the second ones, and so on, from the lowest bits:
    UInt8[K] and Int64[K] indices of their values. At last, K is 0."""
    indices: Integers = np.arange(len(values))
    while len(indices):
        # With its sign, the rest of the value does not fit.
        continues = (values + CONTINUATION_BIT // 2) >> BITS_PER_CHARACTER != 0
        characters = values.astype(np.uint8) & np.uint8(CONTINUATION_BIT - 1)
        characters += FIRST_CHARACTER
        characters += continues.view(np.uint8) << BITS_PER_CHARACTER
        yield characters, indices
        further = np.flatnonzero(continues)
        values, indices = values[further] >> BITS_PER_CHARACTER, indices[further]
    yield np.empty(0, np.uint8), indices
