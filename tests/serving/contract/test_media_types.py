"""Section 2 of the contract: generic types, aliases, encodings and the parts of forms."""

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


def form_part(field: str, file_name: str, body: bytes) -> bytes:
    """A file of a form, as browsers send it."""
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{file_name}"'
    return (
        f"--xyz\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        + body
        + b"\r\n"
    )


def form_of(*parts: bytes) -> Sent:
    """A form of these parts."""
    return Sent(b"".join(parts) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz")
