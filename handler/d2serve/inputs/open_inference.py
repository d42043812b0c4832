"""Tensors of the Open Inference Protocol (KServe v2) -> image values."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.errors import bad_request, unprocessable
from d2serve.inputs.instances import EITHER, Item, in_its_place
from d2serve.inputs.json_values import array_of, decode_base64
from d2serve.messages import OUTPUT_NAMES, Part, Style, Wrapping

DATATYPES = ("UINT8", "FP32", "BYTES")


def is_open_inference(document: dict[str, Any]) -> bool:
    """Whether the document's `inputs` are tensors."""
    inputs = document.get("inputs")
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(tensor, dict) and "datatype" in tensor for tensor in inputs)
    )


def read_tensors(tensors: Sequence[dict[str, Any]]) -> list[Item]:
    """UINT8 and FP32 tensors are arrays; each text of a BYTES tensor is base64 of a picture."""
    return [item for tensor in tensors for item in _read_tensor(tensor)]


def read_wrapping(document: dict[str, Any]) -> Wrapping:
    """The request's id and the outputs that it asks for.

    Raises:
        RequestError: 400 where they are not as they must be.
    """
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise bad_request("the id is not a text", 'such as "id": "42"')
    outputs = document.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise bad_request("outputs is not a list of objects", 'such as [{"name": "boxes"}]')
    names = [output.get("name") for output in outputs]
    if not all(name in OUTPUT_NAMES for name in names):
        raise bad_request(
            "an output that is asked for does not exist", f"there are {', '.join(OUTPUT_NAMES)}"
        )
    return Wrapping(Style.OPEN_INFERENCE, request_id, tuple(names))


def _read_tensor(tensor: dict[str, Any]) -> list[Item]:
    if tensor["datatype"] == "BYTES":
        return [in_its_place(_encoded, text) for text in _texts(tensor)]
    return [in_its_place(_array, tensor)]


def _texts(tensor: dict[str, Any]) -> list[Any]:
    data = tensor.get("data")
    texts = data if isinstance(data, list) and data else [None]
    if "shape" in tensor and math.prod(_shape(tensor)) != len(texts):
        raise _wrong_count(len(texts))
    return texts


def _encoded(text: Any) -> Item:
    if not isinstance(text, str):
        raise bad_request("a BYTES tensor holds no text", "send base64 of images or NPY files")
    return Part(EITHER[0], decode_base64(text))


def _array(tensor: dict[str, Any]) -> npt.NDArray[np.generic]:
    data, datatype, shape = tensor.get("data"), tensor["datatype"], _shape(tensor)
    if datatype not in DATATYPES:
        raise unprocessable("a tensor's datatype is no picture's", f"use {', '.join(DATATYPES)}")
    if not isinstance(data, list):
        raise bad_request("a tensor has no data", "send its values as a list in `data`")
    values = array_of(data).ravel()
    if math.prod(shape) != values.size:
        raise _wrong_count(values.size)
    return _typed(values, datatype).reshape(shape)


def _typed(values: npt.NDArray[np.generic], datatype: str) -> npt.NDArray[np.generic]:
    if datatype == "FP32":
        return values.astype(np.float32)
    if values.dtype != np.uint8:
        raise unprocessable("a UINT8 tensor holds other values", "send whole numbers, 0..255")
    return values


def _shape(tensor: dict[str, Any]) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise bad_request(
            "a tensor's shape is not a list of whole numbers above 0", 'such as "shape": [1]'
        )
    return shape


def _wrong_count(count: int) -> Exception:
    return bad_request(
        f"a tensor holds {count} values, which its shape does not", "make shape and data fit"
    )
