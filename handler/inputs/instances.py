"""Values in JSON -> items that may hold pictures."""

from collections.abc import Callable
from typing import Any, ParamSpec

from handler.errors import RequestError, bad_request
from handler.inputs.base64_text import decode_base64
from handler.inputs.envelope import Item
from handler.inputs.json_text import parse_json
from handler.inputs.media_types import EITHER
from handler.inputs.number_lists import array_of, is_uneven
from handler.messages import Part
from handler.settings import Settings

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
