"""Section 2 of the contract: multipart forms."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest

from tests.bodies import npy_bytes
from tests.serving.contract.rows import CUSTOM_ATTRIBUTES, Array, Sent, base64_of, json_of, png_of
from tests.serving.contract.test_bodies import assert_predictions, small
from tests.serving.contract.test_media_types import BODIES

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
# Headers that servers read, each as the name of a field.
HEADERS = (
    "accept",
    "Accept",
    "content-type",
    "Authorization",
    CUSTOM_ATTRIBUTES.lower(),
    "Content-Encoding",
    "x-d2serve-client",
    "X-D2serve-Timeout-Ms",
    "body",
)


def test_multipart_files_of_any_field_names(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    one = {"data": ("a.png", png_of(image).body, "image/png")}
    assert_predictions(http.post(route_url, files=one), [prediction_of(image)])
    several = {
        "anything": ("a.png", png_of(image).body, "image/png"),
        "else": ("b.npy", npy_bytes(small(image)), "application/x-npy"),
        "third": ("c", png_of(image).body, "application/octet-stream"),
    }
    expected = [prediction_of(image), prediction_of(small(image)), prediction_of(image)]
    assert_predictions(http.post(route_url, files=several), expected)


def test_an_unfilled_file_input_counts_as_absent(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    """Browsers send a part with an empty file name."""
    filled = form_part("first", "a.png", png_of(image).body)
    unfilled = form_part("second", "", b"")
    for parts in ([filled, unfilled], [unfilled, filled]):
        assert_predictions(form_of(*parts).post(http, route_url), [prediction_of(image)])
    rejected = form_of(unfilled).post(http, route_url)
    assert (rejected.status_code, rejected.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"--xyz\r\n\r\nabc\r\n--xyz--\r\n", id="without-fields"),
        pytest.param(
            b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n\x89PNG',
            id="without-its-end",
        ),
    ],
)
def test_a_malformed_form_is_a_400(http: httpx.Client, route_url: str, body: bytes) -> None:
    response = Sent(body, "multipart/form-data; boundary=xyz").post(http, route_url)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "text/plain", "application/octet-stream", "image/x-png"]
)
@pytest.mark.parametrize("name", ["png", "npy"])
def test_the_bytes_of_a_part_decide_for_image_and_generic_types(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    name: str,
    content_type: str,
) -> None:
    files = {"data": ("a", BODIES[name](image), content_type)}
    assert_predictions(http.post(route_url, files=files), [prediction_of(image)])


def test_multipart_files_under_one_field_name(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    mirrored = image[:, ::-1].copy()
    files = [("data", (name, png_of(each).body)) for name, each in (("a", image), ("b", mirrored))]
    response = http.post(route_url, files=files)
    assert_predictions(response, [prediction_of(image), prediction_of(mirrored)])


@pytest.mark.parametrize("file_name", [None, "a.png"])
@pytest.mark.parametrize(
    "content_type", ["image/png", "image/*", "IMAGE/JPEG", "application/octet-stream", "*/*"]
)
def test_a_part_with_a_type_is_a_file(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    content_type: str,
    file_name: str | None,
) -> None:
    sent = form_of(form_part("data", file_name, png_of(image).body, content_type))
    assert_predictions(sent.post(http, route_url), [prediction_of(image)])


def test_a_part_without_a_type_that_is_not_text_is_a_file(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    """As `curl -F 'data=<image.png'` sends it."""
    sent = form_of(form_part("data", None, png_of(image).body, None))
    assert_predictions(sent.post(http, route_url), [prediction_of(image)])


@pytest.mark.parametrize("content_type", [None, "text/plain", "text/plain; charset=utf-8"])
def test_a_part_with_the_name_of_an_option_is_an_option(
    http: httpx.Client, route_url: str, image: Array, content_type: str | None
) -> None:
    """.NET declares the type of text."""
    option = form_part("masks", None, b"none", content_type)
    for parts in ([option, filled(image)], [filled(image), option]):
        response = form_of(*parts).post(http, route_url)
        assert response.status_code == 200, response.text
        assert response.json()["names"]
        assert response.json()["masks"] == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/octet-stream", "text/plain"]
)
@pytest.mark.parametrize("key", ["image", "instances"])
def test_json_as_a_file(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    key: str,
    content_type: str,
) -> None:
    text = base64_of(png_of(image).body)
    document = json_of({"image": text} if key == "image" else {"instances": [{"b64": text}] * 2})
    files = {"data": ("input.json", document.body, content_type)}
    response = http.post(route_url, files=files)
    assert response.status_code == 200, response.text
    expected = [prediction_of(image)] * (1 if key == "image" else 2)
    predictions = response.json().get("predictions", [response.json()])
    assert [each["names"] for each in predictions] == [each["names"] for each in expected]


@pytest.mark.parametrize("content_type", ["application/jsonlines", "application/x-ndjson"])
def test_json_lines_as_a_file(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, content_type: str
) -> None:
    line = json.dumps(base64_of(png_of(image).body)).encode()
    files = {"data": ("input.jsonl", line + b"\n" + line, content_type)}
    assert_predictions(http.post(route_url, files=files), [prediction_of(image)] * 2)


@pytest.mark.parametrize("name", HEADERS)
def test_a_file_does_not_replace_the_header_of_its_name(
    http: httpx.Client, route_url: str, image: Array, name: str
) -> None:
    files = {name: ("a.png", png_of(image).body, "image/png")}
    headers = {"Accept": "image/png", CUSTOM_ATTRIBUTES: "max_detections=1"}
    response = http.post(route_url, files=files, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    response = http.post(route_url, files=files, headers={**headers, "Accept": "*/*"})
    assert len(response.json()["names"]) == 1


@pytest.mark.parametrize("name", HEADERS)
def test_a_field_is_not_taken_for_the_header_of_its_name(
    http: httpx.Client, route_url: str, image: Array, name: str
) -> None:
    files = {"data": ("a.png", png_of(image).body, "image/png")}
    response = http.post(route_url, files=files, data={name: "image/png"})
    assert response.status_code == 400, response.text
    assert "max_detections" in response.json()["error"]["hint"]


def test_an_encoded_part_is_a_415_that_names_the_encoding(
    http: httpx.Client, route_url: str, image: Array
) -> None:
    part = filled(image).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n", 1)
    response = form_of(part).post(http, route_url)
    assert response.status_code == 415, response.text
    assert "gzip" in response.json()["error"]["message"]


def filled(image: Array) -> bytes:
    """A part with an image."""
    return form_part("data", "a.png", png_of(image).body, "image/png")


def form_part(
    field: str,
    file_name: str | None,
    body: bytes,
    content_type: str | None = "application/octet-stream",
) -> bytes:
    """A part of a form; by default a file, as browsers send it."""
    disposition = f'Content-Disposition: form-data; name="{field}"'
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    declared = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    return f"--xyz\r\n{disposition}\r\n{declared}\r\n".encode() + body + b"\r\n"


def form_of(*parts: bytes) -> Sent:
    """A form of these parts."""
    return Sent(b"".join(parts) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz")
