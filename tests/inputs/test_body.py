import json
from base64 import b64encode

import pytest

from d2serve.errors import RequestError
from d2serve.inputs import instances as media_types
from d2serve.inputs.body import read_body
from d2serve.inputs.instances import Envelope
from d2serve.messages import HttpRequest, Part, Style
from d2serve.settings import Settings

TEXT = b64encode(b"any bytes").decode()
DOCUMENT = json.dumps({"instances": [TEXT], "parameters": {"masks": "none"}}).encode()
FORM = {"content-type": "application/x-www-form-urlencoded"}


def read(*parts: Part, headers: dict[str, str] | None = None) -> Envelope:
    return read_body(HttpRequest(headers or {}, parts), Settings())


@pytest.mark.parametrize(
    "content_type", [*media_types.IMAGES, media_types.NPY, "", "IMAGE/PNG; a=b"]
)
def test_a_picture_is_left_to_its_decoder(content_type: str) -> None:
    part = Part(content_type, b"any bytes")
    assert read(part) == Envelope((part,))


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_opened(content_type: str) -> None:
    envelope = read(Part(content_type, DOCUMENT))
    assert envelope.items == (Part("application/octet-stream", b"any bytes"),)
    assert envelope.parameters == {"masks": "none"}
    assert envelope.wrapping.style is Style.INSTANCES


def test_files_of_a_form_are_opened_each_by_its_type() -> None:
    lines = json.dumps(TEXT).encode()
    envelope = read(
        Part("image/png", b"a"),
        Part("application/json", DOCUMENT),
        Part("application/jsonlines", lines),
        Part("text/plain", b"b"),
        Part("image/png", b""),
    )
    kinds = [item.status if isinstance(item, RequestError) else "part" for item in envelope.items]
    assert kinds == ["part", "part", "part", 415, 400]
    assert envelope.parameters == {"masks": "none"}
    assert envelope.wrapping.style is Style.PLAIN


def test_a_web_form_is_told_how_files_are_sent() -> None:
    with pytest.raises(RequestError) as raised:
        read(headers=FORM)
    assert raised.value.status == 415
    assert "--data-binary" in raised.value.hint


def test_another_type_is_told_the_supported_ones_and_not_repeated() -> None:
    with pytest.raises(RequestError) as raised:
        read(Part("text/zqxcanary", b"a"))
    assert raised.value.status == 415
    assert "zqxcanary" not in raised.value.message + raised.value.hint
    for content_type in media_types.NAMED:
        assert content_type in raised.value.hint
