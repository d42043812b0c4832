"""JSON and JSON Lines bodies -> parsed bodies."""

from collections.abc import Callable, Mapping
from typing import Any

from d2serve.errors import RequestError, bad_request
from d2serve.inputs.json_values import (
    Item,
    ParsedBody,
    parse_json,
    read_instance,
    read_instances,
    read_items,
)
from d2serve.inputs.open_inference import (
    has_tensors,
    option_parameters,
    read_envelope,
    read_tensors,
)
from d2serve.messages import OPTION_NAMES, ResponseEnvelope, Style
from d2serve.settings import Settings

# Keys of an instance that is a document of its own.
INSTANCE_KEYS = {"b64", "base64", "image_bytes"}


def read_json(body: bytes, settings: Settings, raw_tensors: memoryview | None = None) -> ParsedBody:
    """Parse a JSON document of any of the contract's shapes, or one instance without a document.

    Args:
        body: the document.
        settings: the limits on JSON.
        raw_tensors: the bytes after the document of an Open Inference request.

    Raises:
        RequestError: the document cannot be used; an invalid one of several images becomes an
            error in its place.
    """
    document = parse_json(body, settings)
    if isinstance(document, dict) and has_tensors(document):
        return _read_open_inference(document, raw_tensors or memoryview(b""))
    if raw_tensors:
        raise bad_request(
            f"{len(raw_tensors)} bytes follow JSON that has no tensors",
            "send `inputs` of the Open Inference Protocol",
        )
    if not isinstance(document, dict):
        return ParsedBody(tuple(read_items(document, settings)))
    key = _images_key(document)
    if not key:
        return ParsedBody((read_instance(document, settings),))
    envelope = ResponseEnvelope(Style.INSTANCES if key == "instances" else Style.PLAIN)
    parameters = _parameters(document)
    return ParsedBody(tuple(READERS[key](document[key], settings)), parameters, envelope)


def read_json_lines(body: bytes, settings: Settings) -> ParsedBody:
    """Parse one instance, or one document without parameters, per line; empty lines are skipped.

    Raises:
        RequestError: all lines are empty. An invalid line becomes an error in its place.
    """
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise bad_request("the body has no lines", "send one JSON instance per line")
    return ParsedBody(tuple(item for line in lines for item in _read_line(line, settings)))


def _read_open_inference(document: dict[str, Any], raw_tensors: memoryview) -> ParsedBody:
    _images_key(document)
    parameters = option_parameters(_parameters(document))
    envelope = read_envelope(document)
    return ParsedBody(tuple(read_tensors(document["inputs"], raw_tensors)), parameters, envelope)


def _read_line(line: bytes, settings: Settings) -> list[Item]:
    try:
        parsed = read_json(line, settings)
    except RequestError as error:
        return [error]
    if parsed.parameters:
        return [
            bad_request(
                "a line has `parameters`, which apply to a whole request",
                "send options in the query string or in the custom attributes",
            )
        ]
    return list(parsed.items)


def _images_key(document: Mapping[str, Any]) -> str:
    """The key that holds the images; empty if the document may be an instance itself."""
    keys = [key for key in READERS if key in document]
    if len(keys) > 1:
        raise bad_request(
            f"{' and '.join(f'`{key}`' for key in keys)} are mutually exclusive",
            "send exactly one of them",
        )
    if not keys and not INSTANCE_KEYS & set(document):
        raise bad_request(
            "the JSON object has no key with images", f"send one of the keys {', '.join(READERS)}"
        )
    return keys[0] if keys else ""


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    misplaced = [name for name in OPTION_NAMES if name in document]
    if misplaced:
        raise bad_request(
            f"the option `{misplaced[0]}` is outside of `parameters`",
            f'move it into `parameters`, as in {{"parameters": {{"{misplaced[0]}": ...}}}}',
        )
    if not isinstance(parameters, dict):
        raise bad_request(
            "`parameters` is not an object", 'send an object such as {"masks": "none"}'
        )
    return parameters


def _read_one(value: Any, settings: Settings) -> list[Item]:
    return [read_instance(value, settings)]


def _read_list(value: Any, settings: Settings) -> list[Item]:
    if not isinstance(value, list) or not value:
        raise bad_request(
            "`images` or `instances` is not a list with at least one image",
            "send a list of base64 strings",
        )
    return read_instances(value, settings)


READERS: dict[str, Callable[[Any, Settings], list[Item]]] = {
    "image": _read_one,
    "images": _read_list,
    "instances": _read_list,
    "data": read_items,
    "input_data": read_items,
    "inputs": read_items,
}
