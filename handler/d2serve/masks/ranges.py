"""Ranges of integers, one after the other."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Int64[sum of lengths]: ranges of ascending integers, one after the other.

    Args:
        starts: Int64[K], the first number of each range.
        lengths: Int64[K], the length of each range, 0 or more.

    Examples:
        >>> ranges(np.array([5, 0, 7]), np.array([2, 0, 1])).tolist()
        [5, 6, 7]
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
