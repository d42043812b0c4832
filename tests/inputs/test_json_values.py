"""Base64, JSON text and nested lists of numbers."""

import json
import tracemalloc
from base64 import b64encode, encodebytes, urlsafe_b64encode
from typing import Any

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs import json_values
from d2serve.inputs.json_values import array_from_lists, decode_base64, parse_json
from d2serve.settings import Settings

BYTES = bytes(range(256))
CANARY = "zqxcanary"
LIMITS = Settings(max_json_values=100)


@pytest.fixture
def nesting_limit_of_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MAX_JSON_NESTING", 4)


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
        pytest.param(
            "\n data:image/png;base64,\n" + encodebytes(BYTES).decode(), id="data-uri-in-lines"
        ),
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
def test_invalid_base64_is_a_400(text: str) -> None:
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
@pytest.mark.usefixtures("nesting_limit_of_4")
def test_json_within_the_limits_is_parsed(text: bytes, value: Any) -> None:
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
@pytest.mark.usefixtures("nesting_limit_of_4")
def test_invalid_or_oversized_json_is_rejected(text: bytes, status: int) -> None:
    with pytest.raises(RequestError) as raised:
        parse_json(text, LIMITS)
    assert raised.value.status == status
    assert CANARY not in raised.value.message


def test_deep_nesting_is_a_400() -> None:
    with pytest.raises(RequestError, match="deeper than 16 levels"):
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
def test_nested_lists_become_an_array(
    lists: list[Any], dtype: type, shape: tuple[int, ...]
) -> None:
    array = array_from_lists(lists)
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
def test_invalid_lists_are_a_422(lists: list[Any]) -> None:
    with pytest.raises(RequestError) as raised:
        array_from_lists(lists)
    assert raised.value.status == 422
    assert CANARY not in raised.value.message


def test_long_string_among_short_ones_uses_little_memory() -> None:
    lists = [["x" * 1_000_000, *["a"] * 100_000]]
    tracemalloc.start()
    with pytest.raises(RequestError):
        array_from_lists(lists)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_nested_lists_of_an_image_keep_its_values() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(array_from_lists(json.loads(json.dumps(image.tolist()))), image)
