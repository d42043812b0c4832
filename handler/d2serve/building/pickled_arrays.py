"""Rebuild the arrays, numbers and tensors of a pickle from checked values."""

import math
from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.building.opaque import Opaque, opaque_type

# Kinds of numbers: bool, signed, unsigned, floating and complex.
NUMBERS = "biufc"
BYTE_ORDERS = ("<", ">", "=", "|")


class PickledType:
    """A numpy dtype of numbers; `dtype` is None for any other."""

    def __init__(self, text: Any, *_: Any) -> None:
        """Parse a dtype such as f4."""
        self.dtype: np.dtype[Any] | None = None
        text = text.decode("latin1") if isinstance(text, bytes) else text
        # Longer texts describe structures.
        if isinstance(text, str) and 2 <= len(text.lstrip("".join(BYTE_ORDERS))) <= 3:
            dtype = np.dtype(text)
            self.dtype = dtype if dtype.kind in NUMBERS else None

    def __setstate__(self, state: Any) -> None:
        """Set the byte order; the other values belong to structures."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if self.dtype is not None and order in BYTE_ORDERS:
            self.dtype = self.dtype.newbyteorder(order)


class PickledArray(np.ndarray[Any, np.dtype[Any]]):
    """An array whose state is checked before numpy sets it."""

    def __setstate__(self, state: Any) -> None:
        """Set shape and values; an array of anything but numbers becomes one of objects."""
        shape, pickled_type, is_fortran, values = state[-4:]
        dtype = pickled_type.dtype if isinstance(pickled_type, PickledType) else None
        if dtype is None:
            self._set((1,), np.dtype(object), [None])
            return
        array = numbers(values, dtype, shape, "F" if is_fortran else "C")
        native = array.astype(dtype.newbyteorder("="))
        self._set(array.shape, native.dtype, native.tobytes())

    def _set(self, shape: tuple[int, ...], dtype: np.dtype[Any], values: Any) -> None:
        set_state: Any = super().__setstate__
        set_state((1, shape, dtype, False, values))


def empty_array(*_: Any) -> PickledArray:
    """Create the array whose state follows in the pickle."""
    return np.ndarray.__new__(PickledArray, (0,), np.dtype(np.int8))


def array_of_buffer(values: Any, pickled_type: Any, shape: Any, order: Any = "C") -> Any:
    """Create an array from a buffer, as pickles of protocol 5 have it."""
    dtype = pickled_type.dtype if isinstance(pickled_type, PickledType) else None
    if dtype is None:
        return opaque_type("numpy", "ndarray")()
    return numbers(values, dtype, shape, order).astype(dtype.newbyteorder("="))


def number(pickled_type: Any, value: Any = None) -> Any:
    """Create a numpy scalar, such as the best metric in training state."""
    dtype = pickled_type.dtype if isinstance(pickled_type, PickledType) else None
    return opaque_type("numpy", "generic")() if dtype is None else numbers(value, dtype, ())[()]


def numbers(values: Any, dtype: np.dtype[Any], shape: Any, order: Any = "C") -> Any:
    """Create an array of exactly these bytes.

    Raises:
        UnpicklingError: the bytes do not match the shape.
    """
    # Pickles of Python 2 have bytes as text.
    content = values.encode("latin1") if isinstance(values, str) else values
    sizes = tuple(shape)
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise UnpicklingError("an array's shape does not consist of sizes")
    if len(memoryview(content).cast("B")) != math.prod(sizes) * dtype.itemsize:
        raise UnpicklingError("an array has another number of bytes than its shape requires")
    flat = np.frombuffer(content, dtype) if math.prod(sizes) else np.empty(0, dtype)
    return flat.reshape(sizes, order="F" if order == "F" else "C")


def tensor(
    storage: Any, offset: Any, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor | Opaque:
    """Create a tensor that lies within its storage; torch would enlarge the storage.

    Raises:
        UnpicklingError: the storage is too small.
    """
    if not isinstance(storage, torch.storage.TypedStorage):
        return opaque_type("torch", "Tensor")()
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise UnpicklingError("a tensor has a negative size, or as many strides as it has not axes")
    last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    room = storage._untyped_storage.nbytes() // storage.dtype.itemsize  # the public one warns
    if offset + (last + 1 if all(size) else 0) > room:
        raise UnpicklingError("a tensor exceeds its storage")
    rebuilt: Tensor = torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))
    return rebuilt


def tensor_of_type(rebuild: Any, _: Any, arguments: Sequence[Any], *__: Any) -> Tensor | Opaque:
    """Create a tensor without the attributes that its subclass added."""
    if rebuild in (tensor, parameter):
        rebuilt: Tensor | Opaque = rebuild(*arguments)
        return rebuilt
    return opaque_type("torch", "Tensor")()


def parameter(data: Any, *_: Any) -> Any:
    """Return a parameter's tensor."""
    return data
