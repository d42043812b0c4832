import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.json_body import read_json, read_json_lines
from d2serve.inputs.json_values import ParsedBody
from d2serve.messages import Part, ResponseEnvelope, Style
from d2serve.settings import Settings

SETTINGS = Settings()
BODY = b"any bytes"
TEXT = b64encode(BODY).decode()
LISTS = [[[1, 2, 3], [4, 5, 6]]]
CANARY = "zqxcanary"


def read(document: Any) -> ParsedBody:
    return read_json(json.dumps(document).encode(), SETTINGS)


def kinds(parsed: ParsedBody) -> list[Any]:
    """The shape, bytes or status of each item."""
    return [kind_of(item) for item in parsed.items]


def kind_of(item: Any) -> Any:
    if isinstance(item, RequestError):
        return item.status
    return item.body if isinstance(item, Part) else item.shape


PLAIN: dict[str, tuple[Any, list[Any]]] = {
    "image": ({"image": TEXT}, [BODY]),
    "image-lists": ({"image": LISTS}, [(1, 2, 3)]),
    "images": ({"images": [TEXT, TEXT]}, [BODY, BODY]),
    "data": ({"data": TEXT}, [BODY]),
    "data-list": ({"data": [TEXT, TEXT]}, [BODY, BODY]),
    "data-lists": ({"data": LISTS}, [(1, 2, 3)]),
    "data-batch": ({"data": [LISTS, LISTS]}, [(2, 1, 2, 3)]),
    "data-uneven": ({"data": [LISTS, LISTS * 2]}, [(1, 2, 3), (2, 2, 3)]),
    "data-text-of-lists": ({"data": json.dumps(LISTS)}, [(1, 2, 3)]),
    "data-texts-of-lists": ({"data": [json.dumps(LISTS), TEXT]}, [(1, 2, 3), BODY]),
    "data-object": ({"data": {"b64": TEXT}}, [BODY]),
    "data-mixed": ({"data": [TEXT, LISTS]}, [BODY, (1, 2, 3)]),
    "input_data": ({"input_data": [TEXT]}, [BODY]),
    "inputs": ({"inputs": TEXT}, [BODY]),
    "bare-text": (TEXT, [BODY]),
    "bare-lists": (LISTS, [(1, 2, 3)]),
    "bare-texts": ([TEXT, TEXT], [BODY, BODY]),
    "bare-instance": ({"b64": TEXT}, [BODY]),
    "bare-image-bytes": ({"image_bytes": {"b64": TEXT}}, [BODY]),
    "one-bad": ({"images": [TEXT, "?", 7, None, {}, LISTS]}, [BODY, 400, 400, 400, 400, (1, 2, 3)]),
    "other-keys": ({"image": TEXT, "signature_name": "serving_default"}, [BODY]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_document_is_parsed(name: str) -> None:
    document, expected = PLAIN[name]
    parsed = read(document)
    assert kinds(parsed) == expected
    assert parsed.envelope == ResponseEnvelope()
    assert parsed.parameters == {}


@pytest.mark.parametrize(
    "instance", [TEXT, {"b64": TEXT}, {"image": TEXT}, {"image_bytes": {"b64": TEXT}}]
)
def test_instances_are_parsed(instance: Any) -> None:
    parsed = read({"instances": [instance, instance]})
    assert kinds(parsed) == [BODY, BODY]
    assert parsed.envelope.style is Style.INSTANCES


def test_each_instance_of_lists_is_an_image() -> None:
    assert kinds(read({"instances": [LISTS, LISTS]})) == [(1, 2, 3), (1, 2, 3)]


@pytest.mark.parametrize("parameters", [None, {}, {"masks": "none"}])
def test_parameters_are_parsed(parameters: Any) -> None:
    assert read({"image": TEXT, "parameters": parameters}).parameters == (parameters or {})


INVALID: dict[str, tuple[Any, int]] = {
    "number": (7, 400),
    "null": (None, 400),
    "true": (True, 400),
    "empty-object": ({}, 400),
    "unknown-keys": ({CANARY: TEXT}, 400),
    "two-keys": ({"image": TEXT, "data": TEXT}, 400),
    "image-number": ({"image": 7}, 400),
    "image-object": ({"image": {"c64": CANARY}}, 400),
    "images-text": ({"images": TEXT}, 400),
    "no-images": ({"images": []}, 400),
    "no-instances": ({"instances": []}, 400),
    "no-base64": ({"image": CANARY + "!"}, 400),
    "uneven-image": ({"image": [[1], [2, 3]]}, 422),
    "broken-lists-in-text": ({"data": "[[1, 2"}, 400),
    "parameters": ({"image": TEXT, "parameters": [CANARY]}, 400),
    "misplaced-option": ({"image": TEXT, "score_threshold": 0.5}, 400),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_document_is_rejected(name: str) -> None:
    document, status = INVALID[name]
    with pytest.raises(RequestError) as raised:
        read(document)
    assert raised.value.status == status
    assert CANARY not in raised.value.message + raised.value.hint


def test_option_outside_parameters_is_rejected_with_a_hint() -> None:
    with pytest.raises(RequestError, match="score_threshold") as raised:
        read({"image": TEXT, "score_threshold": 0.5})
    assert "parameters" in raised.value.hint


def lines(*documents: Any) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(lines(TEXT), [BODY], id="one"),
        pytest.param(lines(TEXT, {"b64": TEXT}, LISTS), [BODY, BODY, (1, 2, 3)], id="several"),
        pytest.param(b"\n" + lines(TEXT) + b"\r\n\n", [BODY], id="empty-lines"),
        pytest.param(lines({"image": TEXT}, {"instances": [TEXT]}), [BODY, BODY], id="documents"),
        pytest.param(lines(TEXT) + b"\n{\n" + lines(7), [BODY, 400, 400], id="bad-lines"),
        pytest.param(lines({"image": TEXT, "parameters": {"masks": "none"}}), [400], id="options"),
    ],
)
def test_json_lines_are_parsed(body: bytes, expected: list[Any]) -> None:
    parsed = read_json_lines(body, SETTINGS)
    assert kinds(parsed) == expected
    assert parsed.envelope == ResponseEnvelope()


def test_no_lines_is_a_400() -> None:
    with pytest.raises(RequestError, match="no line"):
        read_json_lines(b"\n \n", SETTINGS)


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "a", **fields}


TENSORS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "uint8": (tensor(datatype="UINT8", shape=[1, 2, 3], data=[1, 2, 3, 4, 5, 6]), [(1, 2, 3)]),
    "nested": (tensor(datatype="UINT8", shape=[1, 2, 3], data=LISTS), [(1, 2, 3)]),
    "fp32": (tensor(datatype="FP32", shape=[1, 2], data=[0.5, 1]), [(1, 2)]),
    "bytes": (tensor(datatype="BYTES", shape=[2], data=[TEXT, TEXT]), [BODY, BODY]),
    "bytes-without-shape": (tensor(datatype="BYTES", data=[TEXT]), [BODY]),
    "bad-bytes": (tensor(datatype="BYTES", shape=[2], data=[TEXT, 7]), [BODY, 400]),
    "too-few": (tensor(datatype="UINT8", shape=[2, 2], data=[1, 2, 3]), [400]),
    "too-large-a-value": (tensor(datatype="UINT8", shape=[1], data=[256]), [422]),
    "half": (tensor(datatype="UINT8", shape=[1], data=[0.5]), [422]),
    "datatype": (tensor(datatype=CANARY, shape=[1], data=[1]), [422]),
    "no-shape": (tensor(datatype="UINT8", data=[1]), [400]),
    "no-data": (tensor(datatype="UINT8", shape=[1]), [400]),
    "data-text": (tensor(datatype="UINT8", shape=[1], data=CANARY), [400]),
    "zero": (tensor(datatype="UINT8", shape=[0], data=[]), [400]),
    "negative": (tensor(datatype="UINT8", shape=[-1], data=[1]), [400]),
    "true": (tensor(datatype="UINT8", shape=[True], data=[1]), [400]),
    "huge": (tensor(datatype="UINT8", shape=[10**400], data=[1]), [400]),
    "shape-text": (tensor(datatype="UINT8", shape="1", data=[1]), [400]),
    "uneven": (tensor(datatype="FP32", shape=[3], data=[[1, 2], [3]]), [422]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_parsed(name: str) -> None:
    sent, expected = TENSORS[name]
    parsed = read({"inputs": [sent]})
    assert kinds(parsed) == expected
    assert parsed.envelope == ResponseEnvelope(Style.OPEN_INFERENCE)
    for item in parsed.items:
        assert not isinstance(item, RequestError) or CANARY not in item.message + item.hint


def test_fp32_tensors_of_integers_are_floats() -> None:
    (item,) = read({"inputs": [tensor(datatype="FP32", shape=[1, 2], data=[0, 1])]}).items
    assert isinstance(item, np.ndarray)
    assert item.dtype == np.float32


def test_tensors_keep_their_order() -> None:
    first, second = TENSORS["bytes"][0], TENSORS["uint8"][0]
    assert kinds(read({"inputs": [first, second]})) == [BODY, BODY, (1, 2, 3)]


def test_id_and_outputs_are_parsed() -> None:
    document = {"id": "42", "inputs": [TENSORS["bytes"][0]], "outputs": [{"name": "boxes"}]}
    assert read(document).envelope == ResponseEnvelope(Style.OPEN_INFERENCE, "42", ("boxes",))


@pytest.mark.parametrize(
    "more",
    [
        {"id": 42},
        {"id": [CANARY]},
        {"outputs": CANARY},
        {"outputs": 7},
        {"outputs": [CANARY]},
        {"outputs": [{}]},
        {"outputs": [{"name": CANARY}]},
        {"outputs": [{"name": ["boxes"]}]},
    ],
)
def test_invalid_id_or_outputs_is_a_400(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as raised:
        read({"inputs": [TENSORS["bytes"][0]], **more})
    assert raised.value.status == 400
    assert CANARY not in raised.value.message + raised.value.hint
