"""Base64, JSON text and lists of numbers: the parts that JSON bodies are read with."""

import json
import tracemalloc
from base64 import b64encode, encodebytes, urlsafe_b64encode
from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.json_values import array_of, decode_base64, parse_json
from d2serve.settings import Settings

BYTES = bytes(range(256))
CANARY = "zqxcanary"
LIMITS = Settings(max_json_values=100, max_json_nesting=4)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b64encode(BYTES).decode(), id="standard"),
        pytest.param(b64encode(BYTES).decode().rstrip("="), id="without-padding"),
        pytest.param(urlsafe_b64encode(BYTES).decode(), id="url-safe"),
        pytest.param(urlsafe_b64encode(BYTES).decode().rstrip("="), id="url-safe-without-padding"),
        pytest.param(encodebytes(BYTES).decode(), id="in-lines"),
        pytest.param(f"  {b64encode(BYTES).decode()}\r\n", id="with-white-space"),
        pytest.param("data:image/png;base64," + b64encode(BYTES).decode(), id="data-uri"),
        pytest.param("DATA:;base64," + b64encode(BYTES).decode(), id="data-uri-without-a-type"),
        pytest.param(
            "data:image/png;charset=utf-8;base64," + b64encode(BYTES).decode(),
            id="data-uri-with-a-parameter",
        ),
    ],
)
def test_base64_is_decoded(text: str) -> None:
    assert decode_base64(text) == BYTES


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "====", " ", "data:image/png;base64,", "A", "AAAAA", "?AAA", CANARY + "!", "AA=A",
        "data:image/png," + b64encode(BYTES).decode(), "http://example.com/a.png", "ÄÄÄÄ", "\ud800",
        "data:" + "a" * 300 + ";base64,AAAA",
    ],
)  # fmt: skip
def test_other_text_is_a_400(text: str) -> None:
    with pytest.raises(RequestError) as raised:
        decode_base64(text)
    assert raised.value.status == 400
    assert CANARY not in raised.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b"[[[[1]]]]", [[[[1]]]]),
        (b'{"a": {"b": {"c": {"d": 1}}}}', {"a": {"b": {"c": {"d": 1}}}}),
        (b'"[[[["', "[[[["),
        ("\ufeff[1]".encode(), [1]),
        ("[1]".encode("utf-16"), [1]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[" + b"1," * 98 + b"1]", [1] * 99),
    ],
)
def test_json_is_parsed(text: bytes, value: Any) -> None:
    assert parse_json(text, LIMITS) == value


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1,]", 400),
        (b"{'a': 1}", 400),
        (b'"\xff"', 400),
        (b"zqxcanary", 400),
        (b"[" + b"9" * 5000 + b"]", 400),
        (b"[[[[[1]]]]]", 400),
        (b"[" * 10, 400),
        (b'{"a":' * 5 + b"1" + b"}" * 5, 400),
        (b"[" * 10_000, 413),
        (b"[" + b"1," * 100 + b"1]", 413),
        (b"[" + b"{}," * 50 + b"{}]", 413),
    ],
)
def test_what_is_no_json_or_too_much_of_it_is_refused(text: bytes, status: int) -> None:
    with pytest.raises(RequestError) as raised:
        parse_json(text, LIMITS)
    assert raised.value.status == status
    assert CANARY not in raised.value.message


def test_by_default_ten_thousand_nested_lists_are_too_deep() -> None:
    with pytest.raises(RequestError, match="16 deep"):
        parse_json(b"[" * 10_000 + b"]" * 10_000, Settings())


@pytest.mark.parametrize(
    ("lists", "dtype", "shape"),
    [
        ([[0, 255]], np.uint8, (1, 2)),
        ([[0, 256]], np.float64, (1, 2)),
        ([[-1, 1]], np.float64, (1, 2)),
        ([[0.0, 1]], np.float64, (1, 2)),
        ([[True, False]], np.bool_, (1, 2)),
        ([[True, 2]], np.uint8, (1, 2)),
        ([1, 2, 3], np.uint8, (3,)),
        ([[[1, 2, 3]], [[4, 5, 6]]], np.uint8, (2, 1, 3)),
        ([], np.float64, (0,)),
        ([[], []], np.float64, (2, 0)),
        ([[float("nan")]], np.float64, (1, 1)),
    ],
)
def test_lists_become_an_array(lists: list[Any], dtype: type, shape: tuple[int, ...]) -> None:
    array = array_of(lists)
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
    np.testing.assert_array_equal(array, np.array(lists).reshape(shape))


@pytest.mark.parametrize(
    "lists",
    [
        [[1, 2], [3]],
        [[1], 2],
        [1, [2]],
        [[[1]], [[]]],
        [["1"]],
        [[None]],
        [[{}]],
        [[10**400]],
        [[CANARY]],
    ],
)
def test_other_lists_are_a_422(lists: list[Any]) -> None:
    with pytest.raises(RequestError) as raised:
        array_of(lists)
    assert raised.value.status == 422
    assert CANARY not in raised.value.message


def test_one_long_text_among_many_short_ones_takes_no_memory() -> None:
    lists = [["x" * 1_000_000, *["a"] * 100_000]]
    tracemalloc.start()
    with pytest.raises(RequestError):
        array_of(lists)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_nested_lists_of_a_picture_keep_its_values() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(array_of(json.loads(json.dumps(picture.tolist()))), picture)
