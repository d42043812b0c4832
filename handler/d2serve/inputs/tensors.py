"""Tensors of the Open Inference Protocol (KServe v2) -> items, from JSON, HTTP or gRPC."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.errors import RequestError, bad_request, unprocessable
from d2serve.inputs.json_values import Base64Text, Item, array_from_lists, item_or_error
from d2serve.messages import GENERIC_TYPES, Part

BYTES = "BYTES"
# Raw values are little-endian.
DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
# Integers that arrays may have as they are, with their maximum.
MAXIMA = {"BOOL": 1, "UINT8": 255, "UINT16": 65535}
DATATYPES = (BYTES, *DTYPES)
LENGTH_BYTES = 4
MAX_SHOWN = 1_000_000_000


@dataclass(frozen=True)
class InputTensor:
    """A tensor of a request.

    Attributes:
        datatype: one of DATATYPES.
        shape: a list of positive integers; None for BYTES if the client sent none.
        data: the values as a list, or in the protocol's raw form: numbers in little-endian byte
            order, elements of BYTES after their length as 4 bytes. In a list, elements of BYTES
            are base64 (`str`) or raw (`bytes`).
    """

    datatype: Any
    shape: Any
    data: Any


def tensor_items(tensor: InputTensor) -> list[Item]:
    """One item for each element of a BYTES tensor, else one array; an error in its place.

    An element is an encoded image or an NPY file. Integers within 0..255 become UInt8.

    Examples:
        >>> tensor_items(InputTensor("UINT8", [1, 2], b"ab"))
        [array([[97, 98]], dtype=uint8)]
        >>> tensor_items(InputTensor("BYTES", [1], b"\\x02\\0\\0\\0ab"))
        [Part(content_type='application/octet-stream', body=b'ab')]
    """
    if tensor.datatype != BYTES:
        return [item_or_error(_array, tensor)]
    try:
        elements = _elements(tensor)
    except RequestError as error:
        return [error]
    return [item_or_error(_encoded, element) for element in elements]


def _elements(tensor: InputTensor) -> list[Any]:
    data = tensor.data
    if isinstance(data, bytes | memoryview):
        elements: list[Any] = list(_split(memoryview(data)))
    else:
        # A single value of None becomes the error of an element.
        elements = data if isinstance(data, list) and data else [None]
    if tensor.shape is not None:
        _check_count("values", len(elements), math.prod(_shape(tensor.shape)))
    return elements


def _split(raw: memoryview) -> Iterator[bytes]:
    """The elements of a raw BYTES tensor."""
    position = 0
    while position < len(raw):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "little")
        if start > len(raw) or position > len(raw):
            raise bad_request(
                "an element of a BYTES tensor is longer than the tensor",
                "send each element after its length as 4 bytes, little-endian",
            )
        yield bytes(raw[start:position])


def _encoded(element: Any) -> Item:
    if isinstance(element, bytes) and element:
        return Part(GENERIC_TYPES[0], element)
    if isinstance(element, str):
        return Base64Text(element)
    raise bad_request(
        "a BYTES tensor has a value that is empty or not a string",
        "send base64 of images or NPY files in JSON, or the files themselves in binary",
    )


def _array(tensor: InputTensor) -> npt.NDArray[np.generic]:
    data, datatype, shape = tensor.data, tensor.datatype, _shape(tensor.shape)
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise unprocessable(
            "the tensor's datatype is not supported", f"use one of {', '.join(DATATYPES)}"
        )
    if isinstance(data, bytes | memoryview):
        dtype = DTYPES[datatype]
        _check_count("bytes", len(data), math.prod(shape) * dtype.itemsize)
        values: npt.NDArray[np.generic] = np.frombuffer(data, dtype)
    elif isinstance(data, list):
        values = array_from_lists(data).ravel()
        _check_count("values", values.size, math.prod(shape))
    else:
        raise bad_request("the tensor's `data` is not a list", "send its values as a list")
    return _converted(values, datatype).reshape(shape)


def _converted(values: npt.NDArray[Any], datatype: str) -> npt.NDArray[np.generic]:
    """The values in a dtype that images may have."""
    dtype = DTYPES[datatype]
    if values.dtype == dtype and (dtype.kind == "f" or datatype in MAXIMA):
        return values
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinity, which an image must not have
            return values.astype(dtype)
    if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
        raise _not_integers(datatype)
    least, most = values.min(), values.max()
    if datatype not in MAXIMA:
        return values.astype(np.uint8 if least >= 0 and most <= MAXIMA["UINT8"] else np.float64)
    if least < 0 or most > MAXIMA[datatype]:
        raise _not_integers(datatype)
    return values.astype(dtype)


def _not_integers(datatype: str) -> RequestError:
    accepted = f"integers from 0 to {MAXIMA[datatype]}" if datatype in MAXIMA else "integers"
    return unprocessable(
        f"the {datatype} tensor has values other than {accepted}", f"send {accepted}, or use FP32"
    )


def _shape(shape: Any) -> Sequence[int]:
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise bad_request(
            "the tensor's `shape` is not a list of positive integers",
            'send a list such as "shape": [1]',
        )
    return shape


def _check_count(unit: str, count: int, required: int) -> None:
    if required != count:
        # A product of hostile sides may have thousands of digits.
        shown = required if required < MAX_SHOWN else f"more than {MAX_SHOWN}"
        raise bad_request(
            f"the tensor has {count} {unit}, but its shape requires {shown}",
            "make `shape` and the tensor's data match",
        )
