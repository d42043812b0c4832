"""JSON and JSON Lines bodies -> parsed bodies."""

from collections.abc import Callable, Mapping
from typing import Any

from d2serve.errors import RequestError, bad_request
from d2serve.inputs.instances import Envelope, Item, instances_of, item_of, items_of
from d2serve.inputs.json_values import parse_json
from d2serve.inputs.open_inference import is_open_inference, read_tensors, read_wrapping
from d2serve.messages import OPTION_NAMES, Style, Wrapping
from d2serve.settings import Settings

KEYS = ("image", "images", "instances", "data", "input_data", "inputs")


def read_json(body: bytes, settings: Settings) -> Envelope:
    """A JSON document of any of the contract's shapes, or only what such a shape holds.

    Raises:
        RequestError: it cannot be read at all; a bad one of several pictures becomes an error in
            its place.
    """
    document = parse_json(body, settings)
    if not isinstance(document, dict) or not _pictures_key(document):
        return Envelope(tuple(items_of(document, settings)))
    return _read_document(document, settings)


def read_json_lines(body: bytes, settings: Settings) -> Envelope:
    """One instance a line, or a document without parameters; empty lines do not count.

    Raises:
        RequestError: there is no line, or the only one is bad; of several, a bad one becomes an
            error in its place.
    """
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise bad_request("there is no line", "send one JSON instance a line")
    return Envelope(tuple(item for line in lines for item in _read_line(line, settings)))


def _read_line(line: bytes, settings: Settings) -> list[Item]:
    try:
        envelope = read_json(line, settings)
    except RequestError as error:
        return [error]
    if envelope.parameters:
        return [bad_request("a line holds parameters", "options count for the whole request")]
    return [*envelope.items]


def _read_document(document: dict[str, Any], settings: Settings) -> Envelope:
    parameters = _parameters(document)
    if is_open_inference(document):
        return Envelope(
            tuple(read_tensors(document["inputs"])), parameters, read_wrapping(document)
        )
    key = _pictures_key(document)
    wrapping = Wrapping(Style.INSTANCES if key == "instances" else Style.PLAIN)
    items = READERS[key](document[key], settings)
    return Envelope(tuple(items), parameters, wrapping)


def _pictures_key(document: Mapping[str, Any]) -> str:
    """The one key that holds the pictures, or none where the document may be an instance."""
    keys = [key for key in KEYS if key in document]
    if len(keys) > 1:
        raise bad_request(f"{' and '.join(keys)} stand beside each other", "send one of them")
    if not keys and not {"b64", "image_bytes"} & set(document):
        raise bad_request("the JSON holds no picture", f"send one of the keys {', '.join(KEYS)}")
    return keys[0] if keys else ""


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    misplaced = [name for name in OPTION_NAMES if name in document]
    if misplaced:
        raise bad_request(
            f"the option {misplaced[0]} stands beside the pictures", "put it into `parameters`"
        )
    if not isinstance(parameters, dict):
        raise bad_request("parameters is not an object", 'such as {"masks": "none"}')
    return parameters


def _image(value: Any, settings: Settings) -> list[Item]:
    return [item_of(value, settings)]


def _instances(value: Any, settings: Settings) -> list[Item]:
    if not isinstance(value, list) or not value:
        raise bad_request("the list of pictures is not one, or empty", "send a list of base64")
    return instances_of(value, settings)


READERS: dict[str, Callable[[Any, Settings], list[Item]]] = {
    "image": _image,
    "images": _instances,
    "instances": _instances,
    "data": items_of,
    "input_data": items_of,
    "inputs": items_of,
}
