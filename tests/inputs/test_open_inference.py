"""Requests of the Open Inference Protocol: tensors in JSON and in binary."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.body import read_body
from d2serve.inputs.json_values import ParsedBody
from d2serve.messages import BINARY_HEADER, OUTPUT_NAMES, HttpRequest, Part, ResponseEnvelope, Style
from d2serve.settings import Settings
from tests.inputs.test_tensors import elements, kind_of

BODY = b"any bytes"
CANARY = "zqxcanary"
IN_JSON = {"name": "a", "datatype": "BYTES", "shape": [1], "data": [b64encode(BODY).decode()]}
PIXELS = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)


def in_binary(size: Any, **more: Any) -> dict[str, Any]:
    """A tensor with its values after the JSON; by default one encoded image."""
    head = {"name": "b", "datatype": "BYTES", "shape": [1]}
    return {**head, **more, "parameters": {"binary_data_size": size}}


def read(document: Any, raw: bytes = b"", size: Any = None, content_type: str = "") -> ParsedBody:
    """Parse a body with its JSON's size in the header; `size` is another one."""
    head = json.dumps(document).encode()
    headers = {BINARY_HEADER.lower(): str(len(head) if size is None else size)}
    parts = (Part(content_type, head + raw),)
    return read_body(HttpRequest(headers, parts), Settings())


def rejected(document: Any, raw: bytes = b"", size: Any = None) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read(document, raw, size)
    assert raised.value.status == 400
    assert CANARY not in raised.value.message + raised.value.hint
    return raised.value


def read_plain(document: Any) -> ParsedBody:
    part = Part("application/json", json.dumps(document).encode())
    return read_body(HttpRequest({}, (part,)), Settings())


FILE = elements(BODY)


@pytest.mark.parametrize(
    ("tensors", "raw", "expected"),
    [
        pytest.param([in_binary(len(FILE))], FILE, [BODY], id="bytes"),
        pytest.param(
            [in_binary(2 * len(FILE), shape=[2])], FILE * 2, [BODY, BODY], id="two-elements"
        ),
        pytest.param(
            [in_binary(6, datatype="UINT8", shape=[1, 2, 3])],
            PIXELS.tobytes(),
            [(1, 2, 3)],
            id="uint8",
        ),
        pytest.param(
            [in_binary(len(FILE)), IN_JSON, in_binary(4, datatype="FP32", shape=[1, 1])],
            FILE + bytes(4),
            [BODY, BODY, (1, 1)],
            id="in-order-with-one-in-json",
        ),
        pytest.param([IN_JSON], b"", [BODY], id="json-only"),
        pytest.param(
            [in_binary(5, datatype="UINT8", shape=[6]), in_binary(len(FILE))],
            bytes(5) + FILE,
            [400, BODY],
            id="one-of-another-shape",
        ),
    ],
)
@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "application/json"])
def test_binary_tensors_are_read(
    tensors: Sequence[Any], raw: bytes, expected: list[Any], content_type: str
) -> None:
    parsed = read({"inputs": tensors}, raw, content_type=content_type)
    assert [kind_of(item) for item in parsed.items] == expected
    assert parsed.envelope == ResponseEnvelope(Style.OPEN_INFERENCE)


def test_binary_pixels_keep_their_values() -> None:
    tensor = in_binary(6, datatype="UINT8", shape=[1, 2, 3])
    [item] = read({"inputs": [tensor]}, PIXELS.tobytes()).items
    assert isinstance(item, np.ndarray)
    np.testing.assert_array_equal(item, PIXELS)


@pytest.mark.parametrize(
    ("document", "raw", "size"),
    [
        pytest.param({"inputs": [in_binary(len(FILE) + 1)]}, FILE, None, id="size-too-large"),
        pytest.param({"inputs": [in_binary(len(FILE) - 1)]}, FILE, None, id="size-too-small"),
        pytest.param({"inputs": [in_binary(-1)]}, FILE, None, id="negative-size"),
        pytest.param({"inputs": [in_binary(True)]}, b"1", None, id="size-true"),
        pytest.param({"inputs": [in_binary(CANARY)]}, FILE, None, id="size-text"),
        pytest.param({"inputs": [IN_JSON]}, FILE, None, id="bytes-without-a-tensor"),
        pytest.param({"image": IN_JSON["data"]}, FILE, None, id="bytes-after-another-document"),
        pytest.param({"inputs": [IN_JSON]}, b"", 10**9, id="header-beyond-the-body"),
        pytest.param({"inputs": [IN_JSON]}, b"", 5, id="header-inside-the-json"),
        pytest.param({"inputs": [IN_JSON]}, b"", -1, id="negative-header"),
        pytest.param({"inputs": [IN_JSON]}, b"", CANARY, id="header-text"),
        pytest.param({"inputs": [IN_JSON]}, b"", "", id="empty-header"),
        pytest.param({"inputs": [IN_JSON]}, b"", "9" * 5000, id="long-header"),
        pytest.param({"inputs": [IN_JSON]}, b"", "\u00b2", id="other-digits"),
    ],
)
def test_mismatch_of_sizes_is_a_400(document: Any, raw: bytes, size: Any) -> None:
    rejected(document, raw, size)


def test_binary_size_without_the_header_is_a_400_that_names_it() -> None:
    with pytest.raises(RequestError) as raised:
        read_plain({"inputs": [in_binary(5)]})
    assert raised.value.status == 400
    assert BINARY_HEADER in raised.value.hint


def test_header_of_zero_makes_the_body_the_only_tensor() -> None:
    headers = {BINARY_HEADER.lower(): "0"}
    parsed = read_body(HttpRequest(headers, (Part("", BODY),)), Settings())
    assert [kind_of(item) for item in parsed.items] == [BODY]
    assert parsed.envelope.binary_outputs == {*OUTPUT_NAMES}


def test_header_has_no_effect_on_the_file_of_a_form() -> None:
    headers = {"content-type": "multipart/form-data; boundary=a", BINARY_HEADER.lower(): "5"}
    parsed = read_body(HttpRequest(headers, (Part("", BODY),)), Settings())
    assert [kind_of(item) for item in parsed.items] == [BODY]


BINARY, IN_TEXT = {"binary_data": True}, {"binary_data": False}


@pytest.mark.parametrize(
    ("more", "names", "binary"),
    [
        pytest.param({}, (), set(), id="default"),
        pytest.param(
            {"parameters": {"binary_data_output": True}}, (), {*OUTPUT_NAMES}, id="all-in-binary"
        ),
        pytest.param({"parameters": {"binary_data_output": 1}}, (), set(), id="not-a-boolean"),
        pytest.param(
            {"outputs": [{"name": "boxes", "parameters": BINARY}, {"name": "scores"}]},
            ("boxes", "scores"),
            {"boxes"},
            id="one-of-two",
        ),
        pytest.param(
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "boxes", "parameters": IN_TEXT}, {"name": "masks"}],
            },
            ("boxes", "masks"),
            {"masks"},
            id="all-but-one",
        ),
        pytest.param(
            {"outputs": [{"name": "boxes", "parameters": {"classification": 3}}]},
            ("boxes",),
            set(),
            id="classification",
        ),
    ],
)
def test_requested_outputs(more: dict[str, Any], names: tuple[str, ...], binary: set[str]) -> None:
    envelope = read_plain({"id": "42", "inputs": [IN_JSON], **more}).envelope
    assert envelope == ResponseEnvelope(Style.OPEN_INFERENCE, "42", names, frozenset(binary))


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
        {"parameters": [CANARY]},
        {"parameters": {"shared_memory_region": CANARY}},
        {"outputs": [{"name": "boxes", "parameters": {"shared_memory_region": CANARY}}]},
        {"inputs": [{**IN_JSON, "parameters": {"shared_memory_byte_size": 5}}]},
        {"masks": "none"},
        {"image": IN_JSON["data"]},
    ],
)
def test_malformed_request_is_a_400(more: dict[str, Any]) -> None:
    rejected({"inputs": [IN_JSON], **more})


def test_unknown_output_is_a_400_that_lists_the_known_ones() -> None:
    error = rejected({"inputs": [IN_JSON], "outputs": [{"name": CANARY}]})
    assert all(name in error.hint for name in OUTPUT_NAMES)


def test_parameters_of_the_protocol_are_not_options() -> None:
    own = {
        "binary_data": True,
        "binary_data_output": False,
        "binary_data_size": 1,
        "classification": 2,
        "priority": 1,
        "sequence_end": True,
        "sequence_id": 5,
        "sequence_start": True,
        "timeout": 1000,
        "triton_enable_empty_final_response": True,
    }
    parsed = read_plain({"inputs": [IN_JSON], "parameters": {**own, "masks": "none"}})
    assert parsed.parameters == {"masks": "none"}


def test_tensors_have_any_names_and_parameters() -> None:
    tensor = {**IN_JSON, "name": "\u00fc", "parameters": {"content_type": "base64"}}
    assert [kind_of(item) for item in read_plain({"inputs": [tensor]}).items] == [BODY]
