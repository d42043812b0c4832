"""Tensors of the Open Inference Protocol (KServe v2) -> items."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.errors import bad_request, unprocessable
from d2serve.inputs.json_values import Item, array_from_lists, decode_base64, item_or_error
from d2serve.messages import GENERIC_TYPES, OUTPUT_NAMES, Part, ResponseEnvelope, Style

DATATYPES = ("UINT8", "FP32", "BYTES")
MAX_SHOWN = 1_000_000_000


def is_open_inference(document: dict[str, Any]) -> bool:
    """Return whether the document's `inputs` are tensors."""
    inputs = document.get("inputs")
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(tensor, dict) and "datatype" in tensor for tensor in inputs)
    )


def read_tensors(tensors: Sequence[dict[str, Any]]) -> list[Item]:
    """UINT8 and FP32 tensors are arrays; each string of a BYTES tensor is base64 of an image."""
    return [item for tensor in tensors for item in _read_tensor(tensor)]


def read_envelope(document: dict[str, Any]) -> ResponseEnvelope:
    """The request's id and the requested outputs.

    Raises:
        RequestError: 400, either is malformed.
    """
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise bad_request("`id` is not a string", 'send a string such as "id": "42"')
    outputs = document.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise bad_request(
            "`outputs` is not a list of objects", 'send a list such as [{"name": "boxes"}]'
        )
    names = [output.get("name") for output in outputs]
    if not all(name in OUTPUT_NAMES for name in names):
        raise bad_request(
            "`outputs` requests a tensor that does not exist",
            f"request any of {', '.join(OUTPUT_NAMES)}",
        )
    return ResponseEnvelope(Style.OPEN_INFERENCE, request_id, tuple(names))


def _read_tensor(tensor: dict[str, Any]) -> list[Item]:
    if tensor["datatype"] == "BYTES":
        return [item_or_error(_encoded, text) for text in _strings(tensor)]
    return [item_or_error(_array, tensor)]


def _strings(tensor: dict[str, Any]) -> list[Any]:
    data = tensor.get("data")
    strings = data if isinstance(data, list) and data else [None]
    if "shape" in tensor:
        _check_count(len(strings), _shape(tensor))
    return strings


def _encoded(text: Any) -> Item:
    if not isinstance(text, str):
        raise bad_request(
            "a BYTES tensor has a value that is not a string", "send base64 of images or NPY files"
        )
    return Part(GENERIC_TYPES[0], decode_base64(text))


def _array(tensor: dict[str, Any]) -> npt.NDArray[np.generic]:
    data, datatype, shape = tensor.get("data"), tensor["datatype"], _shape(tensor)
    if datatype not in DATATYPES:
        raise unprocessable(
            "the tensor's datatype is not supported", f"use one of {', '.join(DATATYPES)}"
        )
    if not isinstance(data, list):
        raise bad_request("the tensor's `data` is not a list", "send its values as a list")
    values = array_from_lists(data).ravel()
    _check_count(values.size, shape)
    if datatype == "FP32":
        values = values.astype(np.float32)
    elif values.dtype != np.uint8:
        raise unprocessable(
            "a UINT8 tensor has values other than integers from 0 to 255",
            "send integers from 0 to 255, or use FP32",
        )
    return values.reshape(shape)


def _shape(tensor: dict[str, Any]) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise bad_request(
            "the tensor's `shape` is not a list of positive integers",
            'send a list such as "shape": [1]',
        )
    return shape


def _check_count(count: int, shape: list[int]) -> None:
    required = math.prod(shape)
    if required != count:
        # A product of hostile sides may have thousands of digits.
        shown = required if required < MAX_SHOWN else f"more than {MAX_SHOWN}"
        raise bad_request(
            f"the tensor has {count} values, but its shape requires {shown}",
            "make `shape` and `data` match",
        )
