import json
from base64 import b64encode
from typing import Any

import pytest

from d2serve.errors import RequestError
from d2serve.inputs.json_body import read_json, read_json_lines
from d2serve.inputs.json_values import Base64Text, ParsedBody, item_or_error
from d2serve.messages import Part, ResponseEnvelope, Style
from d2serve.settings import Settings

SETTINGS = Settings()
BODY = b"any bytes"
TEXT = b64encode(BODY).decode()
LISTS = [[[1, 2, 3], [4, 5, 6]]]
CANARY = "zqxcanary"


def read(document: Any) -> ParsedBody:
    return read_json(json.dumps(document).encode(), SETTINGS)


def kinds(parsed: ParsedBody) -> list[Any]:
    """The shape, bytes or status of each item."""
    return [kind_of(item) for item in parsed.items]


def kind_of(item: Any) -> Any:
    if isinstance(item, RequestError):
        return item.status
    if isinstance(item, Base64Text):
        return kind_of(item_or_error(item.decode))
    return item.body if isinstance(item, Part) else item.shape


PLAIN: dict[str, tuple[Any, list[Any]]] = {
    "image": ({"image": TEXT}, [BODY]),
    "image-lists": ({"image": LISTS}, [(1, 2, 3)]),
    "images": ({"images": [TEXT, TEXT]}, [BODY, BODY]),
    "data": ({"data": TEXT}, [BODY]),
    "data-list": ({"data": [TEXT, TEXT]}, [BODY, BODY]),
    "data-lists": ({"data": LISTS}, [(1, 2, 3)]),
    "data-batch": ({"data": [LISTS, LISTS]}, [(2, 1, 2, 3)]),
    "data-uneven": ({"data": [LISTS, LISTS * 2]}, [(1, 2, 3), (2, 2, 3)]),
    "data-text-of-lists": ({"data": json.dumps(LISTS)}, [(1, 2, 3)]),
    "data-texts-of-lists": ({"data": [json.dumps(LISTS), TEXT]}, [(1, 2, 3), BODY]),
    "data-object": ({"data": {"b64": TEXT}}, [BODY]),
    "data-mixed": ({"data": [TEXT, LISTS]}, [BODY, (1, 2, 3)]),
    "input_data": ({"input_data": [TEXT]}, [BODY]),
    "inputs": ({"inputs": TEXT}, [BODY]),
    "bare-text": (TEXT, [BODY]),
    "bare-lists": (LISTS, [(1, 2, 3)]),
    "bare-texts": ([TEXT, TEXT], [BODY, BODY]),
    "bare-instance": ({"b64": TEXT}, [BODY]),
    "bare-base64": ({"base64": TEXT, "target": 0}, [BODY]),
    "bare-image-bytes": ({"image_bytes": {"b64": TEXT}}, [BODY]),
    "bare-image-text": ({"image_bytes": TEXT, "key": "1"}, [BODY]),
    "image-object": ({"image": {"b64": TEXT}}, [BODY]),
    "image-object-in-a-list": ({"images": [{"image": {"base64": TEXT}}]}, [BODY]),
    "data-image-object": ({"data": {"image": {"b64": TEXT, "type": "png"}}}, [BODY]),
    "one-bad": ({"images": [TEXT, "?", 7, None, {}, LISTS]}, [BODY, 400, 400, 400, 400, (1, 2, 3)]),
    "other-keys": ({"image": TEXT, "signature_name": "serving_default"}, [BODY]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_document_is_parsed(name: str) -> None:
    document, expected = PLAIN[name]
    parsed = read(document)
    assert kinds(parsed) == expected
    assert parsed.envelope == ResponseEnvelope()
    assert parsed.parameters == {}


@pytest.mark.parametrize(
    "instance",
    [
        TEXT,
        {"b64": TEXT},
        {"base64": TEXT},
        {"data": TEXT},
        {"image": TEXT},
        {"image_bytes": {"b64": TEXT}},
        {"data": TEXT, "target": 0},
        {"b64": TEXT, "name": "a.png", "meta": {"k": [1]}},
        {"image_bytes": {"b64": TEXT, "dtype": "uint8"}, "key": "1"},
    ],
)
def test_instances_are_parsed(instance: Any) -> None:
    parsed = read({"instances": [instance, instance]})
    assert kinds(parsed) == [BODY, BODY]
    assert parsed.envelope.style is Style.INSTANCES


def test_each_instance_of_lists_is_an_image() -> None:
    assert kinds(read({"instances": [LISTS, {"data": LISTS}]})) == [(1, 2, 3), (1, 2, 3)]


@pytest.mark.parametrize("parameters", [None, {}, {"masks": "none"}])
def test_parameters_are_parsed(parameters: Any) -> None:
    assert read({"image": TEXT, "parameters": parameters}).parameters == (parameters or {})


INVALID: dict[str, tuple[Any, int]] = {
    "number": (7, 400),
    "null": (None, 400),
    "true": (True, 400),
    "empty-object": ({}, 400),
    "unknown-keys": ({CANARY: TEXT}, 400),
    "two-keys": ({"image": TEXT, "data": TEXT}, 400),
    "image-number": ({"image": 7}, 400),
    "image-object": ({"image": {"c64": CANARY}}, 400),
    "images-text": ({"images": TEXT}, 400),
    "no-images": ({"images": []}, 400),
    "no-instances": ({"instances": []}, 400),
    "uneven-image": ({"image": [[1], [2, 3]]}, 422),
    "broken-lists-in-text": ({"data": "[[1, 2"}, 400),
    "parameters": ({"image": TEXT, "parameters": [CANARY]}, 400),
    "misplaced-option": ({"image": TEXT, "score_threshold": 0.5}, 400),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_document_is_rejected(name: str) -> None:
    document, status = INVALID[name]
    with pytest.raises(RequestError) as raised:
        read(document)
    assert raised.value.status == status
    assert CANARY not in raised.value.message + raised.value.hint


def test_text_that_is_not_base64_is_rejected_with_the_image() -> None:
    [item] = read({"image": "no base64!"}).items
    assert kind_of(item) == 400


def test_option_outside_parameters_is_rejected_with_a_hint() -> None:
    with pytest.raises(RequestError, match="score_threshold") as raised:
        read({"image": TEXT, "score_threshold": 0.5})
    assert "parameters" in raised.value.hint


def lines(*documents: Any) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(lines(TEXT), [BODY], id="one"),
        pytest.param(lines(TEXT, {"b64": TEXT}, LISTS), [BODY, BODY, (1, 2, 3)], id="several"),
        pytest.param(b"\n" + lines(TEXT) + b"\r\n\n", [BODY], id="empty-lines"),
        pytest.param(lines({"image": TEXT}, {"instances": [TEXT]}), [BODY, BODY], id="documents"),
        pytest.param(lines(TEXT) + b"\n{\n" + lines(7), [BODY, 400, 400], id="bad-lines"),
        pytest.param(lines({"image": TEXT, "parameters": {"masks": "none"}}), [400], id="options"),
    ],
)
def test_json_lines_are_parsed(body: bytes, expected: list[Any]) -> None:
    parsed = read_json_lines(body, SETTINGS)
    assert kinds(parsed) == expected
    assert parsed.envelope == ResponseEnvelope()


def test_no_lines_is_a_400() -> None:
    with pytest.raises(RequestError, match="no line"):
        read_json_lines(b"\n \n", SETTINGS)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        pytest.param(b'{"image": }', "character 10", id="no-value"),
        pytest.param(b"{'image': 1}", "character 1", id="single-quotes"),
        pytest.param(b'{"image": "a"}\n{"image": "b"}', "character 15", id="two-documents"),
        pytest.param('{"image": "é"}'.encode("latin-1"), "not UTF-8", id="latin-1"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(40), "not UTF-8", id="jpeg"),
    ],
)
def test_invalid_json_is_located(body: bytes, place: str) -> None:
    with pytest.raises(RequestError, match="the JSON is invalid") as raised:
        read_json(body, SETTINGS)
    assert raised.value.status == 400
    assert place in raised.value.message


@pytest.mark.parametrize("text", ["https://example.org/a.jpg", "s3://bucket/a.jpg", "a.jpg"])
def test_places_of_images_are_not_read(text: str) -> None:
    (item,) = read({"image": text}).items
    assert isinstance(item, Base64Text)
    with pytest.raises(RequestError, match="not valid base64") as raised:
        item.decode()
    assert "URLs and file names are not read" in raised.value.hint
