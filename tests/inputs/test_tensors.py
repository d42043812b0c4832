"""Tensors of the Open Inference Protocol -> items."""

import struct
from base64 import b64encode
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.json_values import Base64Text, item_or_error
from d2serve.inputs.tensors import DTYPES, InputTensor, tensor_items
from d2serve.messages import Part

BODY = b"any bytes"
TEXT = b64encode(BODY).decode()
LISTS = [[[1, 2, 3], [4, 5, 6]]]
CANARY = "zqxcanary"


def kinds(datatype: Any, shape: Any, data: Any) -> list[Any]:
    """The shape, bytes or status of each item."""
    return [kind_of(item) for item in tensor_items(InputTensor(datatype, shape, data))]


def kind_of(item: Any) -> Any:
    if isinstance(item, RequestError):
        assert CANARY not in item.message + item.hint
        return item.status
    if isinstance(item, Base64Text):
        return kind_of(item_or_error(item.decode))
    return item.body if isinstance(item, Part) else item.shape


def array_of(datatype: str, data: Any, count: int) -> npt.NDArray[Any]:
    [item] = tensor_items(InputTensor(datatype, [1, count], data))
    assert isinstance(item, np.ndarray), item
    return item


def elements(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "expected"),
    [
        pytest.param("UINT8", [1, 2, 3], [1, 2, 3, 4, 5, 6], [(1, 2, 3)], id="uint8"),
        pytest.param("UINT8", [1, 2, 3], LISTS, [(1, 2, 3)], id="nested"),
        pytest.param("UINT8", [1, 2, 3], bytes(6), [(1, 2, 3)], id="raw"),
        pytest.param("UINT8", [1, 6], memoryview(bytes(6)), [(1, 6)], id="a-view-of-raw"),
        pytest.param("FP32", [1, 2], [0.5, 1], [(1, 2)], id="fp32"),
        pytest.param("FP32", [1, 2], bytes(8), [(1, 2)], id="raw-fp32"),
        pytest.param("BYTES", [2], [TEXT, TEXT], [BODY, BODY], id="base64"),
        pytest.param("BYTES", None, [TEXT], [BODY], id="base64-without-shape"),
        pytest.param("BYTES", [2, 1], [TEXT, TEXT], [BODY, BODY], id="base64-in-two-axes"),
        pytest.param("BYTES", [2], [BODY, b"x"], [BODY, b"x"], id="files"),
        pytest.param("BYTES", [2], elements(BODY, b"x"), [BODY, b"x"], id="raw-files"),
        pytest.param("BYTES", [2], [TEXT, 7], [BODY, 400], id="one-bad-string"),
        pytest.param("BYTES", [3], elements(b"x", b"", b"y"), [b"x", 400, b"y"], id="one-empty"),
    ],
)
def test_tensor_is_read(datatype: str, shape: Any, data: Any, expected: list[Any]) -> None:
    assert kinds(datatype, shape, data) == expected


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "status"),
    [
        pytest.param("UINT8", [2, 2], [1, 2, 3], 400, id="too-few"),
        pytest.param("UINT8", [2, 2], bytes(5), 400, id="too-many-raw-bytes"),
        pytest.param("FP32", [2, 2], bytes(4), 400, id="bytes-of-another-datatype"),
        pytest.param("UINT8", [1], [256], 422, id="too-large-a-value"),
        pytest.param("UINT8", [1], [-1], 422, id="negative-value"),
        pytest.param("UINT8", [1], [0.5], 422, id="half"),
        pytest.param("UINT8", [1], [float("nan")], 422, id="nan"),
        pytest.param("UINT16", [1], [65536], 422, id="too-large-a-uint16"),
        pytest.param("BOOL", [1], [2], 422, id="too-large-a-bool"),
        pytest.param("INT64", [1], [0.5], 422, id="half-of-an-int"),
        pytest.param(CANARY, [1], [1], 422, id="datatype"),
        pytest.param("BF16", [1], bytes(2), 422, id="bf16"),
        pytest.param(["UINT8"], [1], [1], 422, id="datatype-list"),
        pytest.param("UINT8", None, [1], 400, id="no-shape"),
        pytest.param("UINT8", [1], None, 400, id="no-data"),
        pytest.param("UINT8", [1], CANARY, 400, id="data-text"),
        pytest.param("UINT8", [0], [], 400, id="zero"),
        pytest.param("UINT8", [-1], [1], 400, id="negative"),
        pytest.param("UINT8", [True], [1], 400, id="true"),
        pytest.param("UINT8", [10**400], [1], 400, id="huge"),
        pytest.param("UINT8", [10**400], b"1", 400, id="huge-raw"),
        pytest.param("UINT8", "1", [1], 400, id="shape-text"),
        pytest.param("FP32", [3], [[1, 2], [3]], 422, id="uneven"),
        pytest.param("BYTES", [1], None, 400, id="no-strings"),
        pytest.param("BYTES", [1], [b""], 400, id="empty-file"),
        pytest.param("BYTES", [2], [TEXT], 400, id="too-few-strings"),
        pytest.param("BYTES", [1], elements(b"x", b"y"), 400, id="too-many-elements"),
        pytest.param("BYTES", [1], b"\5\0\0", 400, id="cut-length"),
        pytest.param("BYTES", [1], b"\5\0\0\0abcd", 400, id="cut-element"),
        pytest.param("BYTES", [1], b"\xff\xff\xff\xffabcd", 400, id="length-of-4-gigabytes"),
        pytest.param("BYTES", [1], b"", 400, id="no-elements"),
    ],
)
def test_bad_tensor_is_an_error_in_its_place(
    datatype: Any, shape: Any, data: Any, status: int
) -> None:
    assert kinds(datatype, shape, data) == [status]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("is_raw", [True, False])
def test_all_datatypes_keep_their_values(datatype: str, is_raw: bool) -> None:
    values = np.array([0, 1, 1], DTYPES[datatype])
    array = array_of(datatype, values.tobytes() if is_raw else values.tolist(), 3)
    assert array.ravel().tolist() == values.tolist()
    is_kept = DTYPES[datatype].kind == "f" or datatype in ("BOOL", "UINT16")
    assert array.dtype == (DTYPES[datatype] if is_kept else np.uint8)


@pytest.mark.parametrize("values", [[-1, 256], [-1, 5], [5, 256]])
def test_integers_beyond_a_byte_are_floats(values: list[int]) -> None:
    array = array_of("INT32", np.array(values, "<i4").tobytes(), 2)
    assert array.dtype == np.float64
    assert array.tolist() == [values]


def test_value_beyond_float16_is_infinite() -> None:
    assert np.isinf(array_of("FP16", [1e9, 0.5], 2)).tolist() == [[True, False]]


def test_raw_values_are_little_endian() -> None:
    assert array_of("FP32", b"\0\0\x80\x3f", 1).tolist() == [[1.0]]
    assert array_of("UINT16", b"\1\2", 1).tolist() == [[0x0201]]
