"""Nested lists of numbers, as JSON brings them -> an array."""

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.errors import unprocessable

NUMBERS = {int, float, bool}


def array_of(lists: list[Any]) -> npt.NDArray[np.generic]:
    """Bool, UInt8 (whole numbers within 0..255) or Float64 values in the lists' shape.

    Raises:
        RequestError: 422 where the lists are uneven or hold something else than numbers.
    """
    shape, level = [len(lists)], lists
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if set(map(type, level)) != {list} or len(set(map(len, level))) > 1:
            raise unprocessable("the lists are uneven", "give all rows the same length")
        level = list(chain.from_iterable(level))
    return _numbers(level).reshape(shape)


def is_uneven(lists: list[Any]) -> bool:
    """Whether the outermost list holds lists of different lengths."""
    return len({len(item) if isinstance(item, list) else -1 for item in lists}) > 1


def _numbers(values: list[Any]) -> npt.NDArray[np.generic]:
    types = set(map(type, values))
    if not types <= NUMBERS:
        raise unprocessable("the lists hold something else than numbers", "send numbers alone")
    if types == {bool}:
        return np.array(values, np.bool_)
    try:
        numbers = np.array(values, np.float64)
    except OverflowError as error:
        raise unprocessable("the lists hold a number beyond all ranges", "send 0..255") from error
    whole = float not in types and values and numbers.min() >= 0 and numbers.max() <= 255
    return numbers.astype(np.uint8) if whole else numbers
