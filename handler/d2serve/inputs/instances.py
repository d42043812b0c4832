"""Parsed bodies, and the image values in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.errors import RequestError, bad_request
from d2serve.inputs.json_values import array_of, decode_base64, is_uneven, parse_json
from d2serve.messages import Part, Wrapping
from d2serve.settings import Settings

IMAGES = tuple(
    f"image/{subtype}" for subtype in ("jpeg", "jpg", "png", "webp", "bmp", "gif", "tiff")
)
NPY = "application/x-npy"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
# An image or an NPY array, told apart by the first bytes.
EITHER = ("application/octet-stream", "application/x-image", "")
FORM = "application/x-www-form-urlencoded"
NAMED = (*IMAGES, NPY, JSON, JSON_LINES, "multipart/form-data", *EITHER[:2])


def essence(content_type: str) -> str:
    """The type alone, in lower case, without parameters (WHATWG MIME Sniffing's "essence")."""
    return content_type.partition(";")[0].strip().lower()


# An encoded image or an NPY file, an array out of lists, or why there is neither in this place.
Item: TypeAlias = Part | npt.NDArray[np.generic] | RequestError


@dataclass(frozen=True)
class Envelope:
    """What a body holds.

    Attributes:
        items: in the order sent; each may hold several pictures.
        parameters: options beside the pictures.
        wrapping: how the answer has to be wrapped.
    """

    items: tuple[Item, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wrapping: Wrapping = field(default_factory=Wrapping)


Arguments = ParamSpec("Arguments")


def items_of(value: Any, settings: Settings) -> list[Item]:
    """One instance, or a list of instances; of several, a bad one becomes an error in its place.

    Lists of numbers of one size are one array (a leading N makes it several pictures), of
    different sizes an array each.
    """
    if isinstance(value, list) and value and not _is_array(value):
        return instances_of(value, settings)
    return [item_of(value, settings)]


def instances_of(values: list[Any], settings: Settings) -> list[Item]:
    """One item for each instance; a bad one becomes an error in its place."""
    return [in_its_place(item_of, value, settings) for value in values]


def in_its_place(
    read: Callable[Arguments, Item], *given: Arguments.args, **more: Arguments.kwargs
) -> Item:
    """What `read` gives, or as an item the RequestError that it raises."""
    try:
        return read(*given, **more)
    except RequestError as error:
        return error


def item_of(value: Any, settings: Settings) -> Item:
    """One instance: base64, nested lists of numbers (as JSON text too), or an object around one.

    Raises:
        RequestError: 400 for anything else, 422 for lists that are no array.
    """
    if isinstance(value, str):
        return _item_of_text(value, settings)
    if isinstance(value, list):
        return array_of(value)
    if isinstance(value, dict):
        return _item_of_object(value, settings)
    raise _not_an_instance()


def _item_of_text(text: str, settings: Settings) -> Item:
    if text.lstrip().startswith("["):
        # "replace": half a surrogate pair is broken JSON anyway.
        return array_of(parse_json(text.encode("utf-8", "replace"), settings))
    return Part(EITHER[0], decode_base64(text))


def _item_of_object(value: dict[str, Any], settings: Settings) -> Item:
    match value:
        case {"b64": str(text)} | {"image_bytes": {"b64": str(text)}}:
            return Part(EITHER[0], decode_base64(text))
        case {"image": str() | list() as image}:
            return item_of(image, settings)
    raise _not_an_instance()


def _is_array(values: list[Any]) -> bool:
    return not isinstance(values[0], str | dict) and not is_uneven(values)


def _not_an_instance() -> RequestError:
    return bad_request(
        "a JSON value holds no picture",
        'send base64, {"b64": ...}, {"image": ...}, {"image_bytes": {"b64": ...}} or nested lists',
    )
