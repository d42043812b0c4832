"""Label Studio's run-length encoding of the masks of its BrushLabels.

A stream of bits: the number of values in 32 bits, the bits per value minus one in 5 bits, and the
four possible widths of a length, each minus one in 4 bits. Then runs: a bit (1: a repeated value),
the index of the length's width in 2 bits, the length minus one in that width, and the value. The
values are the bytes of an RGBA image, row by row; a mask's pixels are 255 in all channels.
"""

import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import MaskRegion

CHANNELS = 4
VALUE_BITS = 8
SET = 255
LENGTH_BITS = np.array([3, 4, 8, 16])
MAX_RUN = 1 << 16
MAX_VALUES = (1 << 32) - 1
# The bit that announces a run, and the index of the length's width.
RUN_PREFIX_BITS = 3


def encode_brush(region: MaskRegion, size_hw: tuple[int, int]) -> list[int]:
    """Encode a mask as the bytes of the attribute `rle`.

    Args:
        region: the mask.
        size_hw: height and width of the image in pixels.

    Raises:
        ValueError: the image has 2**30 pixels or more, which the format cannot express.

    Examples:
        >>> encode_brush(MaskRegion(np.ones((1, 1), np.bool_), 1, 0), (1, 2))
        [0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128]
    """
    count = size_hw[0] * size_hw[1] * CHANNELS
    if count > MAX_VALUES:
        raise ValueError(f"the image has {count // CHANNELS} pixels; expected less than 2**30")
    lengths, values = _split(*_runs(region, size_hw))
    size_index = np.searchsorted(1 << LENGTH_BITS, lengths)
    length_bits = LENGTH_BITS[size_index]
    words = ((4 + size_index) << length_bits | lengths - 1) << VALUE_BITS
    runs = _bits(words | values, RUN_PREFIX_BITS + length_bits + VALUE_BITS)
    return np.packbits(np.concatenate((_header(count), runs))).tolist()


def _header(count: int) -> npt.NDArray[np.uint8]:
    words = np.array([count, VALUE_BITS - 1, *(LENGTH_BITS - 1)], np.int64)
    return _bits(words, np.array([32, 5, 4, 4, 4, 4]))


def _runs(
    region: MaskRegion, size_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lengths and values of runs of the RGBA image's bytes; each row has runs of its own."""
    padded = np.pad(region.pixels, ((0, 0), (1, 1))).astype(np.int8)
    changes = np.diff(padded, axis=1)
    rows, columns = np.nonzero(changes)
    # Of each row, alternately the first pixel of a run and the first one after it.
    positions = (region.y + rows) * size_hw[1] + region.x + columns
    bounds = np.concatenate(([0], positions, [size_hw[0] * size_hw[1]]))
    lengths = np.diff(bounds) * CHANNELS
    values = np.where(np.arange(len(lengths)) % 2, SET, 0)
    return lengths[lengths > 0], values[lengths > 0]


def _split(
    lengths: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split runs that are longer than the longest one of the format."""
    pieces = -(-lengths // MAX_RUN)
    split = np.full(pieces.sum(), MAX_RUN, np.int64)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * MAX_RUN
    return split, np.repeat(values, pieces)


def _bits(words: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """UInt8[sum of widths]: the lowest bits of each word, the highest of them first."""
    ends = np.cumsum(widths)
    shifts = np.repeat(ends, widths) - 1 - np.arange(ends[-1])
    return ((np.repeat(words, widths) >> shifts) & 1).astype(np.uint8)
