"""JSON text, base64 and nested lists of numbers -> Python values, bytes and arrays."""

import base64
import json
import re
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.errors import bad_request, too_large, unprocessable
from d2serve.settings import Settings

NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
OPENING, CLOSING = np.frombuffer(b"[{", np.uint8), np.frombuffer(b"]}", np.uint8)


def parse_json(text: bytes, settings: Settings) -> Any:
    """Parses one JSON document.

    Raises:
        RequestError: 413 more values than the settings allow, 400 lists and objects that lie too
            deep in each other, or no JSON.
    """
    _require_few_values(text, settings.max_json_values)
    _require_shallow(text, settings.max_json_nesting)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_request("the JSON is broken", "send valid JSON in UTF-8") from error


def _require_few_values(text: bytes, limit: int) -> None:
    # Each value but the first of its list or object comes after a comma.
    count = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if count > limit:
        raise too_large(
            f"the JSON holds about {count} values; at most {limit} are accepted",
            "send arrays as NPY, or raise max_json_values in the archive's model-config.yaml",
        )


def _require_shallow(text: bytes, limit: int) -> None:
    """Brackets within strings count too: they are hardly ever there, and never needed so deep."""
    brackets = np.frombuffer(text.translate(None, NOT_BRACKETS), np.uint8)
    steps = np.isin(brackets, OPENING).astype(np.int8) - np.isin(brackets, CLOSING)
    if np.cumsum(steps, dtype=np.int64).max(initial=0) > limit:
        raise bad_request(
            f"the JSON's lists lie more than {limit} deep in each other",
            "send H x W, H x W x C or N x H x W x C lists",
        )


DATA_URI = re.compile(r"data:[\w.+/;=-]{0,200};base64,", re.ASCII | re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/")
WHITESPACE = str.maketrans("", "", " \t\r\n")


def decode_base64(text: str) -> bytes:
    """Decodes base64, standard or URL-safe, with or without padding, white space or a `data:` URI.

    Raises:
        RequestError: 400 where the text is something else, or nothing.
    """
    prefix = DATA_URI.match(text)
    digits = text[prefix.end() :] if prefix else text
    digits = digits.translate(WHITESPACE).translate(URL_SAFE).rstrip("=")
    try:
        body = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        raise bad_request(
            "a text is not base64", "send the base64 of an image's bytes or of an NPY file"
        ) from error
    if not body:
        raise bad_request("a text is empty", "send the base64 of an image's bytes or an NPY file")
    return body


NUMBERS = {int, float, bool}


def array_of(lists: list[Any]) -> npt.NDArray[np.generic]:
    """Bool, UInt8 (whole numbers within 0..255) or Float64 values in the lists' shape.

    Raises:
        RequestError: 422 where the lists are uneven or hold something else than numbers.
    """
    shape, level = [len(lists)], lists
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if set(map(type, level)) != {list} or len(set(map(len, level))) > 1:
            raise unprocessable("the lists are uneven", "give all rows the same length")
        level = list(chain.from_iterable(level))
    return _numbers(level).reshape(shape)


def is_uneven(lists: list[Any]) -> bool:
    """Whether the outermost list holds lists of different lengths."""
    return len({len(item) if isinstance(item, list) else -1 for item in lists}) > 1


def _numbers(values: list[Any]) -> npt.NDArray[np.generic]:
    types = set(map(type, values))
    if not types <= NUMBERS:
        raise unprocessable("the lists hold something else than numbers", "send numbers alone")
    if types == {bool}:
        return np.array(values, np.bool_)
    try:
        numbers = np.array(values, np.float64)
    except OverflowError as error:
        raise unprocessable("the lists hold a number beyond all ranges", "send 0..255") from error
    whole = float not in types and values and numbers.min() >= 0 and numbers.max() <= 255
    return numbers.astype(np.uint8) if whole else numbers
