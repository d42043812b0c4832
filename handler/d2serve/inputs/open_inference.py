"""Requests of the Open Inference Protocol (KServe v2) -> items and response envelopes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from d2serve.errors import bad_request
from d2serve.inputs.json_values import Item
from d2serve.inputs.tensors import InputTensor, tensor_items
from d2serve.messages import BINARY_HEADER, OUTPUT_NAMES, ResponseEnvelope, Style

# Parameters of the protocol, which are not options of d2serve.
PROTOCOL_PARAMETERS = frozenset(
    {
        "binary_data",
        "binary_data_output",
        "binary_data_size",
        "classification",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
    }
)
# Reserved by Triton for itself.
TRITON_PREFIX = "triton_"
SHARED_MEMORY_PREFIX = "shared_memory_"


def has_tensors(document: dict[str, Any]) -> bool:
    """Return whether the document's `inputs` are tensors."""
    inputs = document.get("inputs")
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(tensor, dict) and "datatype" in tensor for tensor in inputs)
    )


def read_tensors(tensors: Sequence[dict[str, Any]], raw: memoryview) -> list[Item]:
    """The items of all tensors, with any names.

    Args:
        tensors: objects with `datatype`, `shape`, and `data` or `parameters.binary_data_size`.
        raw: the bytes after the JSON, which hold the tensors with a size one after the other.

    Raises:
        RequestError: 400, the sizes do not match the bytes.
    """
    return [item for tensor in _located(tensors, raw) for item in tensor_items(tensor)]


def option_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A request's parameters without those of the protocol, which have no effect here.

    Raises:
        RequestError: 400, the tensors are in shared memory.
    """
    _reject_shared_memory(parameters)
    return {
        name: value
        for name, value in parameters.items()
        if name not in PROTOCOL_PARAMETERS and not name.startswith(TRITON_PREFIX)
    }


def read_envelope(document: dict[str, Any]) -> ResponseEnvelope:
    """The request's id, the requested outputs, and those of them in binary.

    Raises:
        RequestError: 400, the id or the outputs are malformed.
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
    default = _parameters_of(document).get("binary_data_output") is True
    requests = outputs or [{"name": name} for name in OUTPUT_NAMES]
    binary = (output["name"] for output in requests if _is_binary(output, default))
    return ResponseEnvelope(Style.OPEN_INFERENCE, request_id, tuple(names), frozenset(binary))


def _located(tensors: Sequence[dict[str, Any]], raw: memoryview) -> Iterator[InputTensor]:
    """The tensors with their data, from the JSON or from the bytes after it."""
    position = 0
    for tensor in tensors:
        parameters = _parameters_of(tensor)
        _reject_shared_memory(parameters)
        data = tensor.get("data")
        if "binary_data_size" in parameters:
            size = _size(parameters["binary_data_size"], len(raw) - position)
            data, position = raw[position : position + size], position + size
        yield InputTensor(tensor["datatype"], tensor.get("shape"), data)
    if position < len(raw):
        raise bad_request(
            f"{len(raw)} bytes follow the JSON, but the tensors have {position}",
            "send the size of each tensor in its parameters.binary_data_size",
        )


def _size(size: Any, remaining: int) -> int:
    if type(size) is not int or size < 0:
        raise bad_request(
            "`binary_data_size` is not a non-negative integer", "send the number of bytes"
        )
    if size > remaining:
        raise bad_request(
            f"`binary_data_size` exceeds the {remaining} bytes that remain after the JSON",
            f"send the tensors after the JSON, and the JSON's size in the header {BINARY_HEADER}",
        )
    return size


def _is_binary(output: Mapping[str, Any], default: bool) -> bool:
    parameters = _parameters_of(output)
    _reject_shared_memory(parameters)
    requested = parameters.get("binary_data")
    return requested if isinstance(requested, bool) else default


def _parameters_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _reject_shared_memory(parameters: Mapping[str, Any]) -> None:
    if any(name.startswith(SHARED_MEMORY_PREFIX) for name in parameters):
        raise bad_request(
            "tensors in shared memory are not supported", "send and receive them in the body"
        )
