"""ModelInfer messages and the bodies of the HTTP protocol."""

import json
from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.tensors import DTYPES, InputTensor, tensor_items
from d2serve.messages import Part
from d2serve.servers.asgi.grpc_messages import infer_body, infer_response, parse_request
from d2serve.servers.asgi.grpc_protocol import message_class

MAX_VALUES = 1000
CONTENTS = {
    "bool_contents": ("BOOL",),
    "int_contents": ("INT8", "INT16", "INT32"),
    "int64_contents": ("INT64",),
    "uint_contents": ("UINT8", "UINT16", "UINT32"),
    "uint64_contents": ("UINT64",),
    "fp32_contents": ("FP32",),
    "fp64_contents": ("FP64",),
}
TYPED = [(datatype, field) for field, datatypes in CONTENTS.items() for datatype in datatypes]


def request_of(*datatypes: str, raw: tuple[bytes, ...] = (), **fields: Any) -> Any:
    request = message_class("ModelInferRequest")(
        model_name="shapes", raw_input_contents=raw, **fields
    )
    for datatype in datatypes:
        request.inputs.add(name="image", datatype=datatype, shape=[1, 2])
    return request


def translated(request: Any) -> tuple[dict[str, Any], bytes]:
    """The JSON and the tensors of the HTTP request."""
    body, length = infer_body(request, MAX_VALUES)
    return json.loads(body[:length]), body[length:]


def error_of(request: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        infer_body(request, MAX_VALUES)
    return caught.value


def test_raw_contents_follow_the_json() -> None:
    document, tensors = translated(request_of("UINT8", "UINT8", raw=(b"ab", b"cd")))
    assert tensors == b"abcd"
    assert (
        document["inputs"]
        == [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 2},
            }
        ]
        * 2
    )


@pytest.mark.parametrize(("datatype", "field"), TYPED)
def test_typed_numbers_become_raw_ones(datatype: str, field: str) -> None:
    request = request_of(datatype)
    getattr(request.inputs[0].contents, field).extend([0, 1])
    document, tensors = translated(request)
    assert document["inputs"][0]["parameters"] == {"binary_data_size": len(tensors)}
    assert tensors == np.array([0, 1], DTYPES[datatype]).tobytes()


def test_typed_bytes_become_elements_with_their_length() -> None:
    request = request_of("BYTES")
    request.inputs[0].contents.bytes_contents.extend([b"first", b"2"])
    _, tensors = translated(request)
    assert tensor_items(InputTensor("BYTES", [1, 2], tensors)) == [
        Part("application/octet-stream", b"first"),
        Part("application/octet-stream", b"2"),
    ]


def test_parameters_keep_their_types() -> None:
    request = request_of("UINT8", raw=(b"ab",))
    request.parameters["masks"].string_param = "none"
    request.parameters["max_detections"].int64_param = 3
    request.parameters["score_threshold"].double_param = 0.5
    request.parameters["sequence_end"].bool_param = True
    request.parameters["priority"].uint64_param = 2**63
    document, _ = translated(request)
    assert document["parameters"] == {
        "masks": "none",
        "max_detections": 3,
        "score_threshold": 0.5,
        "sequence_end": True,
        "priority": 2**63,
        "binary_data_output": True,
    }


def test_id_and_requested_outputs_are_passed_on() -> None:
    request = request_of("UINT8", raw=(b"ab",), id="42")
    request.outputs.add(name="boxes")
    document, _ = translated(request)
    assert document["id"] == "42"
    assert document["outputs"] == [{"name": "boxes", "parameters": {"binary_data": True}}]


def test_without_an_id_none_is_passed_on() -> None:
    document, _ = translated(request_of("UINT8", raw=(b"ab",)))
    assert "id" not in document


def test_raw_contents_of_another_number_of_inputs_are_400() -> None:
    error = error_of(request_of("UINT8", "UINT8", raw=(b"ab",)))
    assert (error.status, error.message) == (
        400,
        "`raw_input_contents` has 1 entries, but `inputs` has 2",
    )


def test_raw_and_typed_contents_together_are_400() -> None:
    request = request_of("UINT8", raw=(b"ab",))
    request.inputs[0].contents.uint_contents.extend([1, 2])
    error = error_of(request)
    assert (error.status, error.message) == (
        400,
        "`raw_input_contents` and `contents` are mutually exclusive",
    )


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("UINT8", "uint_contents", 256), ("INT8", "int_contents", -129)],
)
def test_values_out_of_the_range_of_the_datatype_are_422(
    datatype: str, field: str, value: int
) -> None:
    request = request_of(datatype)
    getattr(request.inputs[0].contents, field).extend([0, value])
    error = error_of(request)
    assert error.status == 422
    assert datatype in error.message


def test_more_typed_values_than_the_limit_are_413() -> None:
    request = request_of("UINT8", "UINT8")
    for tensor in request.inputs:
        tensor.contents.uint_contents.extend([1] * (MAX_VALUES // 2))
    infer_body(request, MAX_VALUES)
    request.inputs[1].contents.uint_contents.append(1)
    assert error_of(request).status == 413


def test_parameter_without_a_value_is_400() -> None:
    request = request_of("UINT8", raw=(b"ab",))
    request.parameters["masks"].SetInParent()
    assert error_of(request).status == 400


def test_damaged_message_is_400() -> None:
    with pytest.raises(RequestError, match="is not a ModelInferRequest"):
        parse_request(b"\xff\xff\xff")


def test_response_has_the_tensors_as_raw_contents() -> None:
    document = {
        "model_name": "shapes",
        "id": "42",
        "parameters": {"errors": [{"image_id": 1}]},
        "outputs": [
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [1],
                "parameters": {"binary_data_size": 4},
            },
            {
                "name": "classes",
                "datatype": "INT64",
                "shape": [1],
                "parameters": {"binary_data_size": 8},
            },
        ],
    }
    head = json.dumps(document).encode()
    response = infer_response(head + b"\0\0\x80\x3f" + b"abcdefgh", len(head))
    assert (response.model_name, response.id) == ("shapes", "42")
    assert json.loads(response.parameters["errors"].string_param) == [{"image_id": 1}]
    assert [(each.name, each.datatype, [*each.shape]) for each in response.outputs] == [
        ("scores", "FP32", [1]),
        ("classes", "INT64", [1]),
    ]
    assert list(response.raw_output_contents) == [b"\0\0\x80\x3f", b"abcdefgh"]
    assert not response.outputs[0].parameters
