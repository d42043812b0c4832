"""JSON values -> items: base64 strings, nested lists of numbers, and instances."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ParamSpec, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.errors import RequestError, bad_request, too_large, unprocessable
from d2serve.messages import GENERIC_TYPES, Part, ResponseEnvelope
from d2serve.settings import Settings

MAX_JSON_NESTING = 16
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
OPENING, CLOSING = np.frombuffer(b"[{", np.uint8), np.frombuffer(b"]}", np.uint8)
DATA_URI = re.compile(r"data:[\w.+/;=-]{0,200};base64,", re.ASCII | re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/")
WHITESPACE = str.maketrans("", "", " \t\r\n")
NUMBERS = {int, float, bool}
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Base64Text:
    """The base64 of an encoded image or of an NPY file.

    It is decoded together with the image, because parsing a body takes a single thread.
    """

    text: str

    def decode(self) -> Part:
        """Decode the text.

        Raises:
            RequestError: 400, the text is not base64 or empty.
        """
        return Part(GENERIC_TYPES[0], decode_base64(self.text))


# An encoded image or an NPY file, an array from nested lists, or the error in its place.
Item: TypeAlias = Part | Base64Text | npt.NDArray[np.generic] | RequestError


@dataclass(frozen=True)
class ParsedBody:
    """The content of a request's body.

    Attributes:
        items: in the order sent; each may contain several images.
        parameters: options of the request.
        envelope: the layout of the response.
    """

    items: tuple[Item, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    envelope: ResponseEnvelope = field(default_factory=ResponseEnvelope)


def parse_json(text: bytes, settings: Settings) -> Any:
    """Parse one JSON document.

    Raises:
        RequestError: 413 more values than the settings allow, 400 nested too deeply, or not JSON.
    """
    _check_value_count(text, settings.max_json_values)
    _check_nesting(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid_json(error) from error


def decode_base64(text: str) -> bytes:
    """Decode base64, standard or URL-safe, with or without padding, white space or a `data:` URI.

    Raises:
        RequestError: 400, the text is not base64 or empty.

    Examples:
        >>> decode_base64("data:image/png;base64,aGVsbG8")
        b'hello'
    """
    text = text.lstrip()
    prefix = DATA_URI.match(text)
    digits = text[prefix.end() :] if prefix else text
    digits = digits.translate(WHITESPACE).translate(URL_SAFE).rstrip("=")
    try:
        body = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        raise bad_request(
            "a string is not valid base64",
            "send the base64 of an image or of an NPY file; URLs and file names are not read",
        ) from error
    if not body:
        raise bad_request("a string is empty", "send the base64 of an image or of an NPY file")
    return body


def array_from_lists(lists: list[Any]) -> npt.NDArray[np.generic]:
    """Bool, UInt8 (integers within 0..255) or Float64 values in the shape of the nested lists.

    Raises:
        RequestError: 422, the lists are ragged or contain something other than numbers.

    Examples:
        >>> array_from_lists([[1, 2, 3], [4, 5, 255]])
        array([[  1,   2,   3],
               [  4,   5, 255]], dtype=uint8)
    """
    shape, level = [len(lists)], lists
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if set(map(type, level)) != {list} or len(set(map(len, level))) > 1:
            raise unprocessable(
                "the nested lists are ragged", "give all lists of a level the same length"
            )
        level = list(chain.from_iterable(level))
    return _number_array(level).reshape(shape)


def read_items(value: Any, settings: Settings) -> list[Item]:
    """One instance, or a list of instances; an invalid one of several becomes an error.

    Nested lists of numbers of one size are one array (a leading N makes it several images), lists
    of different sizes are separate arrays.
    """
    if isinstance(value, list) and value and not _is_array(value):
        return read_instances(value, settings)
    return [read_instance(value, settings)]


def read_instances(values: list[Any], settings: Settings) -> list[Item]:
    """One item for each instance; an invalid one becomes an error in its place."""
    return [item_or_error(read_instance, value, settings) for value in values]


def read_instance(value: Any, settings: Settings) -> Item:
    """One instance: base64, nested lists of numbers (also as a JSON string), or an object of one.

    Other keys of the object are ignored.

    Raises:
        RequestError: 400 for anything else, 422 for lists that do not form an array.
    """
    match value:
        case str(text):
            if text.lstrip().startswith("["):
                # "replace": half a surrogate pair is invalid JSON anyway.
                lists = parse_json(text.encode("utf-8", "replace"), settings)
                return array_from_lists(lists)
            return Base64Text(text)
        case list():
            return array_from_lists(value)
        case {"b64": str(text)} | {"base64": str(text)}:
            return Base64Text(text)
        case {"image_bytes": str() | {"b64": str()} as content}:
            return read_instance(content, settings)
        case {"image": str() | list() | dict() as content} | {"data": str() | list() as content}:
            return read_instance(content, settings)
    raise bad_request(
        f"a JSON {_json_type(value)} is not an image",
        'send base64, nested lists, or an object with one of "b64", "base64", "data", "image" '
        'and "image_bytes"',
    )


def item_or_error(
    read: Callable[Arguments, Item], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Item:
    """The item that `read` returns, or the RequestError that it raises."""
    try:
        return read(*args, **kwargs)
    except RequestError as error:
        return error


def _invalid_json(error: ValueError | RecursionError) -> RequestError:
    """400 with the place of the first fault, without the text there."""
    problem, hint = "the JSON is invalid", "send valid JSON in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        problem += f" at character {error.pos}"
        hint += ", and one document per line as application/jsonlines"
    elif isinstance(error, UnicodeDecodeError):
        problem += ": it is not UTF-8"
    return bad_request(problem, hint)


def _check_value_count(text: bytes, limit: int) -> None:
    # Each value except the first of its list or object follows a comma.
    count = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if count > limit:
        raise too_large(
            f"the JSON has about {count} values, the limit is {limit}",
            "send arrays as NPY, or raise max_json_values in the archive's model-config.yaml",
        )


def _check_nesting(text: bytes) -> None:
    """Brackets within strings count too: they are rare and never need to be nested so deeply."""
    brackets = np.frombuffer(text.translate(None, NOT_BRACKETS), np.uint8)
    steps = np.isin(brackets, OPENING).astype(np.int8) - np.isin(brackets, CLOSING)
    if np.cumsum(steps, dtype=np.int64).max(initial=0) > MAX_JSON_NESTING:
        raise bad_request(
            f"JSON nesting is deeper than {MAX_JSON_NESTING} levels",
            "send images as base64, or as H x W, H x W x C or N x H x W x C lists",
        )


def _number_array(values: list[Any]) -> npt.NDArray[np.generic]:
    types = set(map(type, values))
    if not types <= NUMBERS:
        raise unprocessable(
            "the nested lists contain a value that is not a number", "send only numbers"
        )
    if types == {bool}:
        return np.array(values, np.bool_)
    try:
        numbers = np.array(values, np.float64)
    except OverflowError as error:
        raise unprocessable(
            "the nested lists contain a number beyond the range of float64", "send 0..255"
        ) from error
    whole = float not in types and values and numbers.min() >= 0 and numbers.max() <= 255
    return numbers.astype(np.uint8) if whole else numbers


def _is_array(values: list[Any]) -> bool:
    """Return whether a list is one array rather than a list of instances."""
    if isinstance(values[0], str | dict):
        return False
    return len({len(item) if isinstance(item, list) else -1 for item in values}) == 1


def _json_type(value: Any) -> str:
    names = {dict: "object", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), "value")
