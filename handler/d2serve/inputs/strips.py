"""Conversion of arrays in strips, without temporary arrays of their full size."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# Any dtype -> UInt8, of the same shape.
Conversion: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]
STRIP_VALUES = 1 << 18


def to_uint8(array: npt.NDArray[Any], convert: Conversion) -> npt.NDArray[np.uint8]:
    """Convert an array along its first axis, about STRIP_VALUES values at a time.

    Args:
        array: [H, ...] of any dtype.
        convert: computes each value of its result from the value at the same place.
    """
    converted = np.empty(array.shape, np.uint8)
    rows = max(1, STRIP_VALUES * len(array) // max(1, array.size))
    for start in range(0, len(array), rows):
        strip = slice(start, start + rows)
        converted[strip] = convert(array[strip])
    return converted
