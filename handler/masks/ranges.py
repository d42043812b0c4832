"""Many ranges of numbers at once."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Int64[sum of lengths]: one range of rising numbers after the other.

    Args:
        starts: Int64[K], each one's first number.
        lengths: Int64[K], how many numbers each has, 0 or more.
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
