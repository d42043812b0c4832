"""Section 2 of the contract: generic types, aliases and encodings; forms are in test_forms.py."""

from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest

from tests.bodies import image_bytes, npy_bytes
from tests.serving.contract.rows import Array, Sent, base64_of, json_of, png_of
from tests.serving.contract.test_bodies import assert_predictions

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
GENERIC = (
    None,
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
    "text/plain; charset=utf-8",
    "application/x-www-form-urlencoded",
    "*/*",
)
BODIES: dict[str, Callable[[Array], bytes]] = {
    "png": lambda image: png_of(image).body,
    "npy": npy_bytes,
    "json": lambda image: json_of({"image": base64_of(png_of(image).body)}).body,
    "indented-json": lambda image: b"\n  " + json_of([base64_of(png_of(image).body)]).body,
}
ALIASES = {
    "image/pjpeg": "JPEG",
    "image/x-png": "PNG",
    "image/tif": "TIFF",
    "image/x-ms-bmp": "BMP",
    "image/*": "PNG",
}


@pytest.mark.parametrize("content_type", GENERIC)
@pytest.mark.parametrize("name", BODIES)
def test_the_first_bytes_decide_for_a_generic_type(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    name: str,
    content_type: str | None,
) -> None:
    response = Sent(BODIES[name](image), content_type).post(http, route_url)
    assert_predictions(response, [prediction_of(image)])


@pytest.mark.parametrize("content_type", GENERIC)
def test_json_lines_of_a_generic_type(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    content_type: str | None,
) -> None:
    line = json_of({"b64": base64_of(png_of(image).body)}).body
    response = Sent(line + b"\n" + line, content_type).post(http, route_url)
    assert_predictions(response, [prediction_of(image)] * 2)


@pytest.mark.parametrize("content_type", ALIASES)
def test_an_alias_of_a_type(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, content_type: str
) -> None:
    body = image_bytes(image, ALIASES[content_type])
    response = Sent(body, content_type).post(http, route_url)
    assert response.status_code == 200, response.text
    assert response.json()["classes"] == prediction_of(image)["classes"]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl"])
def test_an_alias_of_json_lines(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, content_type: str
) -> None:
    line = json_of(base64_of(png_of(image).body)).body
    response = Sent(line + b"\n" + line, content_type).post(http, route_url)
    assert_predictions(response, [prediction_of(image)] * 2)


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, deflate"])
def test_another_content_encoding_is_a_415_that_names_it(
    http: httpx.Client, route_url: str, image: Array, encoding: str
) -> None:
    sent = png_of(image, **{"Content-Encoding": encoding})
    response = sent.post(http, route_url)
    assert response.status_code == 415, response.text
    error = response.json()["error"]
    assert error["code"] == "unsupported_media_type"
    assert encoding.rpartition(" ")[2].lower() in error["message"].lower()


def test_the_identity_encoding(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    response = png_of(image, **{"Content-Encoding": "identity"}).post(http, route_url)
    assert_predictions(response, [prediction_of(image)])
