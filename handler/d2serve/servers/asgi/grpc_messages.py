"""ModelInfer requests -> bodies of `POST /v2/models/{name}/infer`, and its responses -> messages.

The core reads and writes the binary tensors of the HTTP protocol, whose bytes are those of the raw
contents of gRPC.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from d2serve.errors import bad_request, too_large, unprocessable
from d2serve.inputs.tensors import DTYPES
from d2serve.servers.asgi.grpc_protocol import message_class

ModelInferRequest = message_class("ModelInferRequest")
ModelInferResponse = message_class("ModelInferResponse")

# The field of InferTensorContents that holds the values of a datatype. FP16 has raw contents only.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
LENGTH = struct.Struct("<I")


def parse_request(message: bytes) -> Any:
    """Parse a ModelInferRequest.

    Raises:
        RequestError: 400, the message is damaged.
    """
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise bad_request(
            "the message is not a ModelInferRequest",
            "use a client of the Open Inference Protocol",
        ) from error


def infer_body(request: Any, max_values: int) -> tuple[bytes, int]:
    """The body of the HTTP request with binary tensors, and the length of its JSON in bytes.

    Args:
        request: a ModelInferRequest with raw or typed contents.
        max_values: maximum number of values in typed contents.

    Raises:
        RequestError: 400 raw and typed contents do not match the inputs, 413 typed contents have
            more than `max_values` values, 422 one of them is out of range.
    """
    contents = _contents(request, max_values)
    document = {
        **({"id": request.id} if request.id else {}),
        "parameters": {**_values(request.parameters), "binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                "parameters": {**_values(tensor.parameters), "binary_data_size": len(content)},
            }
            for tensor, content in zip(request.inputs, contents, strict=True)
        ],
        "outputs": [
            {"name": output.name, "parameters": {"binary_data": True}} for output in request.outputs
        ],
    }
    head = json.dumps(document).encode("ascii")
    return b"".join((head, *contents)), len(head)


def infer_response(body: bytes, head_length: int) -> Any:
    """The ModelInferResponse of an HTTP response with binary tensors.

    Args:
        body: the body of the HTTP response.
        head_length: the length of its JSON in bytes.
    """
    document = json.loads(body[:head_length])
    response = ModelInferResponse(
        model_name=document["model_name"],
        model_version=document.get("model_version", ""),
        id=document.get("id", ""),
    )
    _set_parameters(response.parameters, document.get("parameters", {}))
    start = head_length
    for tensor in document["outputs"]:
        parameters = dict(tensor.get("parameters", {}))
        end = start + parameters.pop("binary_data_size")
        output = response.outputs.add(
            name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
        )
        _set_parameters(output.parameters, parameters)
        response.raw_output_contents.append(body[start:end])
        start = end
    return response


def _contents(request: Any, max_values: int) -> Sequence[bytes]:
    """The raw contents of each input."""
    raw = request.raw_input_contents
    if not raw:
        return list(_typed_contents(request.inputs, max_values))
    if any(tensor.HasField("contents") for tensor in request.inputs):
        raise bad_request(
            "`raw_input_contents` and `contents` are mutually exclusive", "send one of them"
        )
    if len(raw) != len(request.inputs):
        raise bad_request(
            f"`raw_input_contents` has {len(raw)} entries, but `inputs` has {len(request.inputs)}",
            "send the raw contents of each input, in the order of `inputs`",
        )
    return raw


def _typed_contents(tensors: Sequence[Any], max_values: int) -> Iterator[bytes]:
    """The typed contents of each input in raw form; the core rejects unknown datatypes."""
    remaining = max_values
    for tensor in tensors:
        values = getattr(tensor.contents, CONTENTS.get(tensor.datatype, "bytes_contents"))
        remaining -= len(values)
        if remaining < 0:
            raise too_large(
                f"`contents` has more than {max_values} values", "send `raw_input_contents`"
            )
        yield _packed(values, tensor.datatype) if tensor.datatype in DTYPES else _joined(values)


def _joined(elements: Sequence[bytes]) -> bytes:
    """BYTES elements, each after its length."""
    return b"".join(part for element in elements for part in (LENGTH.pack(len(element)), element))


def _packed(values: Sequence[float], datatype: str) -> bytes:
    wide = np.array(list(values))
    packed = wide.astype(DTYPES[datatype])
    if packed.dtype.kind in "iu" and not np.array_equal(packed, wide):
        raise unprocessable(
            f"a {datatype} tensor has values that its datatype does not have",
            "send values within the range of the datatype",
        )
    return packed.tobytes()


def _values(parameters: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    return {name: _value(parameter) for name, parameter in parameters.items()}


def _value(parameter: Any) -> bool | int | float | str:
    choice = parameter.WhichOneof("choice")
    if choice is None:
        raise bad_request(
            "a parameter has no value",
            "set one of bool_param, int64_param, string_param, double_param and uint64_param",
        )
    return getattr(parameter, choice)


def _set_parameters(target: Any, values: Mapping[str, Any]) -> None:
    """Set parameters of a response; lists and objects become JSON."""
    for name, value in values.items():
        target[name].string_param = value if isinstance(value, str) else json.dumps(value)
