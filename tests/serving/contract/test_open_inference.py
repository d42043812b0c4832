"""The Open Inference Protocol (KServe v2) of the contract: tensors in JSON and in binary."""

import json
from collections.abc import Callable
from itertools import cycle
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from d2serve.messages import BINARY_HEADER
from tests.bad_requests import REJECTED
from tests.bodies import npy_bytes
from tests.serving.contract.rows import (
    Array,
    At,
    BinaryTensor,
    Sent,
    base64_of,
    binary_inference_of,
    open_inference_of,
    png_of,
    tensors_of,
)
from tests.serving.contract.test_bodies import small
from tests.serving.served import Served

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
INFER = "/v2/models/{model}/infer"
ROUTES = ("/invocations", "/predictions/{model}", INFER, "/v2/models/{model}/versions/1/infer")
TENSORS: dict[str, Callable[[Array], Sent]] = {
    "UINT8": lambda p: open_inference_of("UINT8", p.ravel().tolist(), list(p.shape)),
    "UINT8-nested": lambda p: open_inference_of("UINT8", p.tolist(), list(p.shape)),
    "UINT8-batch-of-one": lambda p: open_inference_of("UINT8", p.tolist(), [1, *p.shape]),
    "FP32": lambda p: open_inference_of("FP32", (p / 255).ravel().tolist(), list(p.shape)),
    "BYTES": lambda p: open_inference_of("BYTES", [base64_of(png_of(p).body)], [1]),
    "binary-UINT8": lambda p: binary_inference_of(BinaryTensor.of_array(p)),
    "binary-UINT8-batch": lambda p: binary_inference_of(BinaryTensor.of_array(p[None])),
    "binary-FP32": lambda p: binary_inference_of(
        BinaryTensor.of_array((p / 255).astype(np.float32))
    ),
    "binary-BYTES-png": lambda p: binary_inference_of(BinaryTensor.of_files(png_of(p).body)),
    "binary-BYTES-npy": lambda p: binary_inference_of(BinaryTensor.of_files(npy_bytes(p))),
}
# The protocol's own parameters, which clients send unasked.
PARAMETERS: dict[str, Any] = {
    "timeout": 1_000_000,
    "priority": 1,
    "sequence_id": 7,
    "sequence_start": True,
    "sequence_end": False,
    "binary_data_output": False,
}


@pytest.mark.parametrize(("name", "route"), [*zip(TENSORS, cycle(ROUTES), strict=False)])
def test_tensors(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict, name: str, route: str
) -> None:
    response = TENSORS[name](small(image)).post(http, at(route))
    assert response.status_code == 200, response.text
    assert_same_tensors(tensors_of(response), prediction_of(small(image)))


def test_the_response_in_json(
    served: Served, at: At, http: httpx.Client, image: Array, prediction_of: Predict
) -> None:
    sent = open_inference_of("BYTES", [base64_of(png_of(image).body)], [1], id="42")
    response = sent.post(http, at(INFER))
    content, found = response.json(), prediction_of(image)
    assert (content["model_name"], content["id"]) == (served.model_name, "42")
    count = len(found["classes"])
    described = {t["name"]: (t["datatype"], t["shape"]) for t in content["outputs"]}
    assert described == {
        "boxes": ("FP32", [count, 4]),
        "scores": ("FP32", [count]),
        "classes": ("INT64", [count]),
        "masks": ("BYTES", [count]),
    }
    masks = content["outputs"][-1]["data"]
    assert [json.loads(mask)["size"] for mask in masks] == [list(image.shape[:2])] * count


def test_several_files_in_one_binary_tensor(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict
) -> None:
    files = [png_of(image).body, npy_bytes(small(image))]
    response = binary_inference_of(BinaryTensor.of_files(*files)).post(http, at(INFER))
    assert response.status_code == 200, response.text
    expected = [prediction_of(each)["classes"] for each in (image, small(image))]
    tensors = tensors_of(response)
    assert tensors["classes"] == [index for each in expected for index in each]
    positions = [position for position, each in enumerate(expected) for _ in each]
    assert tensors["image_ids"] == positions


@pytest.mark.parametrize("route", ["/invocations", INFER])
def test_all_outputs_in_binary(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict, route: str
) -> None:
    parameters = {"binary_data_output": True}
    tensor = BinaryTensor.of_files(png_of(image).body)
    response = binary_inference_of(tensor, parameters=parameters).post(http, at(route))
    assert response.status_code == 200, response.text
    document = json.loads(response.content[: int(response.headers[BINARY_HEADER])])
    assert not any("data" in output for output in document["outputs"])
    found = prediction_of(image)
    tensors = tensors_of(response)
    assert_same_tensors(tensors, found)
    sizes = [json.loads(mask)["size"] for mask in tensors["masks"]]
    assert sizes == [mask["size"] for mask in found["masks"]]


def test_requested_outputs_in_json_and_binary(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict
) -> None:
    outputs = [
        {"name": "scores", "parameters": {"binary_data": True}},
        {"name": "classes", "parameters": {"binary_data": False}},
    ]
    tensor = BinaryTensor.of_array(small(image))
    response = binary_inference_of(tensor, outputs=outputs).post(http, at(INFER))
    assert response.status_code == 200, response.text
    document = json.loads(response.content[: int(response.headers[BINARY_HEADER])])
    in_json = {output["name"]: "data" in output for output in document["outputs"]}
    assert in_json == {"scores": False, "classes": True}
    tensors, found = tensors_of(response), prediction_of(small(image))
    np.testing.assert_allclose(tensors["scores"], found["scores"], atol=1e-4)
    assert tensors["classes"] == found["classes"]


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_the_protocols_own_parameters_are_never_refused(
    at: At, http: httpx.Client, image: Array, parameter: str
) -> None:
    text = base64_of(png_of(image).body)
    given = {parameter: PARAMETERS[parameter], "max_detections": 1}
    response = open_inference_of("BYTES", [text], [1], parameters=given).post(http, at(INFER))
    assert response.status_code == 200, response.text
    assert len(tensors_of(response)["classes"]) == 1


BAD = (
    "broken-json",
    "option-unknown",
    "tensor-of-another-shape",
    "accept",
    "nan",
    "too-many-images",
)


@pytest.mark.parametrize(("name", "route"), [*zip(BAD, cycle(ROUTES[2:]), strict=False)])
def test_an_error_has_the_form_of_the_protocol(
    at: At, http: httpx.Client, name: str, route: str
) -> None:
    bad = REJECTED[name]
    headers = {**bad.headers, "Content-Type": bad.content_type}
    response = http.post(at(route), content=bad.body, headers=headers)
    assert response.status_code == bad.status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)
    assert response.json()["error"]


BROKEN_BINARY: dict[str, Callable[[Array], Sent]] = {
    "length-beyond-the-body": lambda p: _with_length(p, 10_000_000),
    "length-inside-the-json": lambda p: _with_length(p, 5),
    "fewer-values-than-declared": lambda p: _cut(p),
}


@pytest.mark.parametrize("name", BROKEN_BINARY)
def test_broken_binary_tensors_are_a_400(
    at: At, http: httpx.Client, image: Array, name: str
) -> None:
    response = BROKEN_BINARY[name](small(image)).post(http, at(INFER))
    assert response.status_code == 400, response.text
    assert isinstance(response.json()["error"], str)


def _with_length(image: Array, length: int) -> Sent:
    sent = binary_inference_of(BinaryTensor.of_array(image))
    return Sent(sent.body, sent.content_type, {BINARY_HEADER: str(length)})


def _cut(image: Array) -> Sent:
    sent = binary_inference_of(BinaryTensor.of_array(image))
    return Sent(sent.body[:-1], sent.content_type, sent.headers)


def assert_same_tensors(tensors: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check for the instances of a response in the default format."""
    boxes = np.reshape(tensors["boxes"], (-1, 4))
    np.testing.assert_allclose(boxes, np.reshape(expected["boxes"], (-1, 4)), atol=0.01)
    np.testing.assert_allclose(tensors["scores"], expected["scores"], atol=1e-4)
    assert tensors["classes"] == expected["classes"]
