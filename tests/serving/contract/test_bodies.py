"""Section 2 of the contract: content types, arrays and JSON shapes, through the real servers.

More of it: test_media_types.py, test_forms.py and test_open_inference.py.
"""

import json
from collections.abc import Callable
from itertools import cycle
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.bodies import image_bytes, npy_bytes
from tests.serving.contract.rows import (
    Array,
    At,
    Sent,
    base64_of,
    json_of,
    npy_of,
    opened,
    png_of,
    url_safe_base64_of,
)
from tests.serving.traffic import assert_same_prediction

Row: TypeAlias = Callable[[Array], Sent]
Predict: TypeAlias = Callable[[Array], dict[str, Any]]


def grey(image: Array) -> Array:
    """UInt8[H, W]."""
    return np.asarray(Image.fromarray(image).convert("L"))


def three_channels(values: Array) -> Array:
    """UInt8[H, W] -> UInt8[H, W, 3]."""
    return np.repeat(values[:, :, None], 3, axis=2)


def with_alpha(image: Array) -> Array:
    """UInt8[H, W, 4]."""
    return np.dstack((image, np.full(image.shape[:2], 7, np.uint8)))


def small(image: Array) -> Array:
    """A tenth of the pixels, for bodies of nested lists."""
    return image[::3, ::3].copy()


def indexed(image: Array) -> Image.Image:
    """A palette image, whose 64 colours are far enough apart to be preserved."""
    return Image.fromarray(image // 64 * 64).quantize(64)


IMAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "image/png": ("image/png", "PNG", {}),
    "image/webp": ("image/webp", "WEBP", {"lossless": True}),
    "image/bmp": ("image/bmp", "BMP", {}),
    "image/tiff": ("image/tiff", "TIFF", {}),
    "application/x-image": ("application/x-image", "PNG", {}),
    "application/octet-stream": ("application/octet-stream", "PNG", {}),
    "a-png-called-jpeg": ("image/jpeg", "PNG", {}),
    "a-png-called-jpg": ("image/jpg", "PNG", {}),
    "a-bmp-called-gif": ("image/gif", "BMP", {}),
    "parameters-and-case": ("IMAGE/PNG; charset=binary", "PNG", {}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_encoded_image(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    content_type, file_format, options = IMAGES[name]
    sent = Sent(image_bytes(image, file_format, **options), content_type)
    assert_predictions(sent.post(http, route_url), [prediction_of(image)])


def test_no_content_type(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    for body in (png_of(image).body, npy_bytes(image)):
        assert_predictions(Sent(body).post(http, route_url), [prediction_of(image)])


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/jpg"])
def test_a_jpeg(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, content_type: str
) -> None:
    body = image_bytes(image, "JPEG", quality=95)
    decoded = np.asarray(opened(body))
    response = Sent(body, content_type).post(http, route_url)
    assert response.json()["names"] == prediction_of(decoded)["names"]


COLOUR_MODES: dict[str, tuple[Callable[[Array], Image.Image], Callable[[Array], Array]]] = {
    "grey": (lambda p: Image.fromarray(grey(p)), lambda p: three_channels(grey(p))),
    "palette": (indexed, lambda p: np.asarray(indexed(p).convert("RGB"))),
    "alpha": (lambda p: Image.fromarray(with_alpha(p)), lambda p: p),
    "16-bit": (
        lambda p: Image.fromarray(grey(p).astype(np.uint16) * 257),
        lambda p: three_channels(grey(p)),
    ),
}


@pytest.mark.parametrize("mode", COLOUR_MODES)
def test_every_colour_mode_is_converted_to_rgb(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, mode: str
) -> None:
    make, equivalent = COLOUR_MODES[mode]
    response = Sent(image_bytes(make(image), "PNG"), "image/png").post(http, route_url)
    assert_predictions(response, [prediction_of(equivalent(image))])


def test_cmyk(http: httpx.Client, route_url: str, image: Array, prediction_of: Predict) -> None:
    body = image_bytes(Image.fromarray(image).convert("CMYK"), "TIFF")
    response = Sent(body, "image/tiff").post(http, route_url)
    assert_predictions(response, [prediction_of(image)])


def test_exif_orientation_is_applied(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = image_bytes(image, "PNG", exif=exif)
    response = Sent(body, "image/png").post(http, route_url)
    assert_predictions(response, [prediction_of(np.rot90(image, -1))])


@pytest.mark.parametrize(
    ("file_format", "content_type"), [("GIF", "image/gif"), ("PNG", "image/png")]
)
def test_the_first_frame_of_an_animation_is_used(
    http: httpx.Client,
    route_url: str,
    image: Array,
    prediction_of: Predict,
    file_format: str,
    content_type: str,
) -> None:
    first = indexed(image)
    others = [Image.new("P", first.size, colour) for colour in (1, 2)]
    body = image_bytes(first, file_format, save_all=True, append_images=others)
    response = Sent(body, content_type).post(http, route_url)
    assert_predictions(response, [prediction_of(np.asarray(first.convert("RGB")))])


ARRAYS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], str, str]] = {
    # The array sent, the equivalent image, the options, and the range in the response.
    "HxWx3": (lambda p: p, lambda p: p, "", "0-255"),
    "HxW": (grey, lambda p: three_channels(grey(p)), "", "0-255"),
    "HxWx1": (lambda p: grey(p)[:, :, None], lambda p: three_channels(grey(p)), "", "0-255"),
    "HxWx4": (with_alpha, lambda p: p, "", "0-255"),
    "3xHxW": (lambda p: p.transpose(2, 0, 1), lambda p: p, "", "0-255"),
    "1xHxW": (lambda p: grey(p)[None], lambda p: three_channels(grey(p)), "", "0-255"),
    "4xHxW": (lambda p: with_alpha(p).transpose(2, 0, 1), lambda p: p, "", "0-255"),
    "1xHxWx3": (lambda p: p[None], lambda p: p, "", "0-255"),
    "fortran": (np.asfortranarray, lambda p: p, "", "0-255"),
    "uint16": (lambda p: p.astype(np.uint16) * 257, lambda p: p, "", "0-65535"),
    "big-endian": (lambda p: p.astype(">u2") * np.uint16(257), lambda p: p, "", "0-65535"),
    "bool": (
        lambda p: grey(p) > 100,
        lambda p: three_channels((grey(p) > 100).astype(np.uint8) * 255),
        "",
        "0-1",
    ),
    "float16": (lambda p: (p / 255).astype(np.float16), lambda p: p, "", "0-1"),
    "float32": (lambda p: (p / 255).astype(np.float32), lambda p: p, "", "0-1"),
    "float64": (lambda p: p / 255, lambda p: p, "", "0-1"),
    "float--1-1": (lambda p: p / 127.5 - 1, lambda p: p, "", "-1-1"),
    "float-0-255": (lambda p: p.astype(np.float32), lambda p: p, "", "0-255"),
    "layout-hwc": (lambda p: p, lambda p: p, "input_layout=hwc", "0-255"),
    "layout-chw": (
        lambda p: p[:, :3].transpose(2, 0, 1),
        lambda p: p[:, :3],
        "input_layout=chw",
        "0-255",
    ),
    "bgr": (lambda p: p[:, :, ::-1], lambda p: p, "input_color=bgr", "0-255"),
    "range-0-255": (
        lambda p: (p / 255).astype(np.float32),
        lambda p: np.rint(p / 255).astype(np.uint8),
        "input_range=0-255",
        "0-255",
    ),
    "range-0-1": (lambda p: p / 255, lambda p: p, "input_range=0-1", "0-1"),
    "range--1-1": (
        lambda p: p / 255,
        lambda p: np.rint(p / 2 + 127.5).astype(np.uint8),
        "input_range=-1-1",
        "-1-1",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    make, equivalent, attributes, expected_range = ARRAYS[name]
    response = npy_of(make(image), attributes).post(http, route_url)
    assert_predictions(response, [prediction_of(equivalent(image))])
    assert response.headers["X-Input-Range"] == expected_range


def test_an_array_of_several_images(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    images = [image, image[::-1]]
    expected = [prediction_of(one) for one in images]
    for array in (np.stack(images), np.stack(images).transpose(0, 3, 1, 2)):
        assert_predictions(npy_of(array).post(http, route_url), expected)


def encoded(image: Array) -> str:
    return base64_of(png_of(image).body)


DOCUMENTS: dict[str, Row] = {
    "image": lambda p: json_of({"image": encoded(p)}),
    "image-npy": lambda p: json_of({"image": base64_of(npy_bytes(p))}),
    "image-url-safe": lambda p: json_of({"image": url_safe_base64_of(png_of(p).body)}),
    "image-data-uri": lambda p: json_of({"image": f"data:image/png;base64,{encoded(p)}"}),
    "images-of-one": lambda p: json_of({"images": [encoded(p)]}),
    "data": lambda p: json_of({"data": encoded(p)}),
    "data-list": lambda p: json_of({"data": [encoded(p)]}),
    "input_data": lambda p: json_of({"input_data": encoded(p)}),
    "inputs": lambda p: json_of({"inputs": encoded(p)}),
    "parameters": lambda p: json_of({"image": encoded(p), "parameters": {"format": "default"}}),
    "bare-text": lambda p: json_of(encoded(p)),
    "bare-list": lambda p: json_of([encoded(p)]),
}
LISTS: dict[str, Row] = {
    "data-lists": lambda p: json_of({"data": p.tolist()}),
    "data-lists-of-floats": lambda p: json_of({"data": (p / 255).tolist()}),
    "data-lists-as-text": lambda p: json_of({"data": json.dumps(p.tolist())}),
    "data-list-of-texts": lambda p: json_of({"data": [json.dumps(p.tolist())]}),
    "input_data-lists": lambda p: json_of({"input_data": p.transpose(2, 0, 1).tolist()}),
    "inputs-lists": lambda p: json_of({"inputs": p.tolist()}),
    "bare-lists": lambda p: json_of(p.tolist()),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_json_document(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    response = DOCUMENTS[name](image).post(http, route_url)
    assert_predictions(response, [prediction_of(image)])


@pytest.mark.parametrize("name", LISTS)
def test_json_lists_of_numbers(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    response = LISTS[name](small(image)).post(http, route_url)
    assert_predictions(response, [prediction_of(small(image))])


SEVERAL: dict[str, Row] = {
    "images": lambda p: json_of({"images": [encoded(p), encoded(small(p))]}),
    "instances": lambda p: json_of({"instances": [encoded(p), {"b64": encoded(small(p))}]}),
    "data": lambda p: json_of({"data": [encoded(p), encoded(small(p))]}),
    "lists-of-different-sizes": lambda p: json_of({"inputs": [encoded(p), small(p).tolist()]}),
    "json-lines": lambda p: Sent(
        b"\n".join(json.dumps(line).encode() for line in (encoded(p), {"b64": encoded(small(p))})),
        "application/jsonlines",
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_json_with_several_images(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    response = SEVERAL[name](image).post(http, route_url)
    assert_predictions(response, [prediction_of(image), prediction_of(small(image))])


PREDICTION_ROUTES = ("/v1/models/{model}:predict", "/invocations", "/predictions/{model}")
INSTANCES: dict[str, Callable[[Array], Any]] = {
    "text": encoded,
    "b64": lambda p: {"b64": encoded(p)},
    "base64": lambda p: {"base64": encoded(p)},
    "data": lambda p: {"data": encoded(p)},
    "image": lambda p: {"image": encoded(p)},
    "image_bytes": lambda p: {"image_bytes": {"b64": encoded(p)}},
    "keys-beside-it": lambda p: {"key": "7", "b64": encoded(p), "meta": {"camera": 3}},
    "data-and-target": lambda p: {"data": encoded(p), "target": 0},
    "target-and-data-uri": lambda p: {
        "target": None,
        "data": f"data:image/png;base64,{encoded(p)}",
    },
    "image_bytes-and-id": lambda p: {"id": 7, "image_bytes": {"b64": encoded(p), "type": "png"}},
    "lists-and-target": lambda p: {"data": p.tolist(), "target": [0, 1]},
    "lists": lambda p: p.tolist(),
}


@pytest.mark.parametrize(
    ("name", "route"),
    [*zip(INSTANCES, cycle(PREDICTION_ROUTES), strict=False)],
)
def test_instances_get_predictions(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict, name: str, route: str
) -> None:
    sent = json_of({"instances": [INSTANCES[name](small(image))]})
    response = sent.post(http, at(route))
    assert response.status_code == 200, response.text
    [prediction] = response.json()["predictions"]
    assert_same_prediction(prediction, prediction_of(small(image)))


LINES: dict[str, Callable[[Array], list[Any]]] = {
    "text": lambda p: [encoded(p)],
    "object": lambda p: [{"image": encoded(p)}],
    "lists": lambda p: [p.tolist()],
}


@pytest.mark.parametrize("name", LINES)
def test_json_lines(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, name: str
) -> None:
    lines = "".join(f"{json.dumps(line)}\n" for line in LINES[name](small(image)))
    response = Sent(lines.encode(), "application/jsonlines").post(http, route_url)
    assert_predictions(response, [prediction_of(small(image))])


@pytest.mark.parametrize("header", ["Content-Type", "content-type", "CONTENT-TYPE", "cOnTeNt-tYpE"])
def test_header_names_are_case_insensitive(
    http: httpx.Client, route_url: str, image: Array, header: str
) -> None:
    accept = "aCCept"
    response = http.post(
        route_url,
        content=npy_bytes(image),
        headers={header: "application/x-npy", accept: "image/png"},
    )
    assert response.headers["content-type"] == "image/png"


def assert_predictions(response: httpx.Response, expected: list[dict[str, Any]]) -> None:
    """Check for the same predictions as for the same images as PNG."""
    assert response.status_code == 200, response.text
    content = response.json()
    assert ("predictions" in content) == (len(expected) > 1), content
    predictions = content["predictions"] if len(expected) > 1 else [content]
    for one, other in zip(predictions, expected, strict=True):
        assert_same_prediction(one, other)
