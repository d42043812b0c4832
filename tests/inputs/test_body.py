"""Request bodies by Content-Type."""

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest

from d2serve import messages
from d2serve.errors import RequestError
from d2serve.inputs.body import decode_item, read_body
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.json_values import Base64Text, Item, ParsedBody
from d2serve.messages import HttpRequest, Options, Part, Style
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes

TEXT = b64encode(b"any bytes").decode()
DOCUMENT = json.dumps({"instances": [TEXT], "parameters": {"masks": "none"}}).encode()
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=a"
GENERIC = [
    "", "application/octet-stream", "application/x-image", "binary/octet-stream", "text/plain",
    "text/plain; charset=utf-8", "*/*", "Text/Plain", FORM,
]  # fmt: skip


def read(*parts: Part, headers: dict[str, str] | None = None) -> ParsedBody:
    return read_body(HttpRequest(headers or {}, parts), Settings())


@pytest.mark.parametrize(
    "content_type", [*messages.IMAGE_TYPES, messages.NPY_TYPE, "", "IMAGE/PNG; a=b"]
)
def test_image_and_array_types_are_passed_to_the_decoder(content_type: str) -> None:
    part = Part(content_type, b"any bytes")
    assert read(part) == ParsedBody((part,))


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_parsed_by_content_type(content_type: str) -> None:
    parsed = read(Part(content_type, DOCUMENT))
    assert parsed.items == (Base64Text(TEXT),)
    assert parsed.parameters == {"masks": "none"}
    assert parsed.envelope.style is Style.INSTANCES


def test_each_file_of_a_form_is_parsed_by_its_own_type() -> None:
    lines = json.dumps(TEXT).encode()
    parsed = read(
        Part("image/png", b"a"),
        Part("application/json", DOCUMENT),
        Part("application/jsonlines", lines),
        Part("text/plain", b"b"),
        Part("image/png", b""),
        Part("text/html", b"c"),
    )
    kinds = [item.status if isinstance(item, RequestError) else "part" for item in parsed.items]
    assert kinds == ["part", "part", "part", "part", 415]
    assert parsed.parameters == {"masks": "none"}
    assert parsed.envelope.style is Style.PLAIN


@pytest.mark.parametrize("content_type", [*GENERIC, "image/png", "image/*"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(DOCUMENT, id="object"),
        pytest.param(f'["{TEXT}"]'.encode(), id="list"),
        pytest.param(f'"{TEXT}"'.encode(), id="string"),
        pytest.param(b"\r\n\t " + DOCUMENT, id="white-space"),
        pytest.param(b"\xef\xbb\xbf" + DOCUMENT, id="byte-order-mark"),
    ],
)
def test_json_is_detected_for_image_and_generic_types(content_type: str, body: bytes) -> None:
    assert read(Part(content_type, body)).items == (Base64Text(TEXT),)


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl; a=b"])
def test_aliases_of_json_lines(content_type: str) -> None:
    line = json.dumps(TEXT).encode()
    assert len(read(Part(content_type, line + b"\n" + line)).items) == 2


@pytest.mark.parametrize("content_type", [*GENERIC, "image/png", "image/*"])
@pytest.mark.parametrize(
    "separator", [b"\n", b"\r\n", b"\n\n", b" \t\r\n "], ids=["lf", "crlf", "empty", "white-space"]
)
@pytest.mark.parametrize("line", [f'"{TEXT}"', f'{{"b64": "{TEXT}"}}', f'["{TEXT}"]'])
def test_json_lines_are_detected_for_image_and_generic_types(
    content_type: str, separator: bytes, line: str
) -> None:
    body = separator.join([b"", line.encode(), b'{"image": 5}', line.encode(), b""])
    first, second, third = read(Part(content_type, body)).items
    assert first == third == Base64Text(TEXT)
    assert isinstance(second, RequestError)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps(json.loads(DOCUMENT), indent=2).encode(), id="indented"),
        pytest.param(f'["{TEXT}"\n]'.encode(), id="string-at-the-end-of-a-line"),
        pytest.param(DOCUMENT + b"\n\n", id="empty-lines-at-the-end"),
        pytest.param(f'{{"instances":\n["{TEXT}"]\n}}'.encode(), id="list-on-a-line"),
    ],
)
def test_a_document_of_several_lines_is_one_document(body: bytes) -> None:
    assert read(Part("", body)).items == (Base64Text(TEXT),)
    assert read(Part("application/json", body)).items == (Base64Text(TEXT),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'{{"instances": ["{TEXT}"]\n{{"b64": 1}}'.encode(), id="unclosed-line"),
        pytest.param(f'[\n{{"b64": "{TEXT}"}}\n{{"b64": "{TEXT}"}}\n]'.encode(), id="no-comma"),
        pytest.param(DOCUMENT + b"\nhello", id="text-after-a-document"),
    ],
)
def test_a_damaged_document_of_several_lines_is_a_400(body: bytes) -> None:
    with pytest.raises(RequestError, match="the JSON is invalid"):
        read(Part("", body))


def test_json_lines_declared_as_json_are_a_400() -> None:
    with pytest.raises(RequestError, match="the JSON is invalid"):
        read(Part("application/json", DOCUMENT + b"\n" + DOCUMENT))


def test_json_document_as_a_file_of_a_form() -> None:
    parsed = read(Part("application/octet-stream", DOCUMENT), headers={"content-type": MULTIPART})
    assert parsed.parameters == {"masks": "none"}
    assert parsed.envelope.style is Style.INSTANCES


def test_web_form_that_the_server_has_parsed_is_a_415_with_a_curl_hint() -> None:
    with pytest.raises(RequestError) as raised:
        read(headers={"content-type": FORM})
    assert raised.value.status == 415
    assert "--data-binary" in raised.value.hint


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", "br", "identity, deflate", "zstd", "aws-chunked", "UTF-8"]
)
def test_content_encoding_is_a_415_that_names_it(encoding: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(Part("image/png", b"any bytes"), headers={"content-encoding": encoding})
    assert (raised.value.status, raised.value.code) == (415, "unsupported_media_type")
    assert encoding.rpartition(" ")[2].lower() in raised.value.message
    assert raised.value.headers == {"Accept-Encoding": "identity"}


def test_unknown_content_encoding_is_not_repeated() -> None:
    with pytest.raises(RequestError) as raised:
        read(Part("image/png", b"any bytes"), headers={"content-encoding": "zqxcanary"})
    assert raised.value.status == 415
    assert "zqxcanary" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", "identity, identity"])
def test_identity_encoding_is_accepted(encoding: str) -> None:
    assert read(Part("", b"any bytes"), headers={"content-encoding": encoding}).items


def test_unsupported_content_type_is_a_415_that_lists_the_supported_types() -> None:
    with pytest.raises(RequestError) as raised:
        read(Part("text/zqxcanary", b"a"))
    assert raised.value.status == 415
    assert "zqxcanary" not in raised.value.message + raised.value.hint
    for content_type in messages.REQUEST_TYPES:
        assert content_type in raised.value.hint


RGB = noise(5, 8, 3)
PNG = image_bytes(RGB, "PNG")
NPY = npy_bytes(RGB)
TRUNCATED = PNG[:60]


def request_of(*parts: tuple[str, bytes]) -> HttpRequest:
    return HttpRequest({}, tuple(Part(*part) for part in parts))


def decode(*parts: tuple[str, bytes], **settings: Any) -> list[Any]:
    """The images of all items; the error of one of several items in its place."""
    limits = Settings(**settings)
    items = read_body(request_of(*parts), limits).items
    budget = RequestBudget(limits)
    budget.take_images(len(items))

    def images_of(item: Item) -> list[Any]:
        try:
            return [*decode_item(item, Options(0.0, 100), limits, budget).images]
        except RequestError as error:
            if len(items) == 1 or error is budget.error:
                raise
            return [error]

    return [slot for item in items for slot in images_of(item)]


def rejected(*parts: tuple[str, bytes], **settings: Any) -> RequestError:
    with pytest.raises(RequestError) as raised:
        decode(*parts, **settings)
    return raised.value


def statuses(slots: list[Any]) -> list[int | str]:
    return [slot.status if isinstance(slot, RequestError) else "image" for slot in slots]


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("", id="none"),
        pytest.param("image/png", id="its-own-type"),
        pytest.param("image/jpeg", id="another-image-type"),
        pytest.param("image/jpg", id="jpg"),
        pytest.param("image/webp", id="webp"),
        pytest.param("image/bmp", id="bmp"),
        pytest.param("image/gif", id="gif"),
        pytest.param("image/tiff", id="tiff"),
        pytest.param("image/pjpeg", id="pjpeg"),
        pytest.param("image/x-png", id="x-png"),
        pytest.param("image/tif", id="tif"),
        pytest.param("image/x-ms-bmp", id="x-ms-bmp"),
        pytest.param("image/*", id="any-image"),
        *GENERIC,
        pytest.param("IMAGE/Png", id="mixed-case"),
        pytest.param(" image/png ; charset=binary", id="spaces-and-a-parameter"),
        pytest.param("image/png;", id="an-empty-parameter"),
        pytest.param("; charset=binary", id="only-a-parameter"),
    ],
)
def test_first_bytes_win_over_the_declared_image_type(content_type: str) -> None:
    (image,) = decode((content_type, PNG))
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    "content_type",
    [
        *GENERIC,
        pytest.param("image/png", id="an-image-type"),
        pytest.param("application/x-npy", id="npy"),
        pytest.param("Application/X-NPY; version=1", id="npy-in-mixed-case-with-a-parameter"),
    ],
)
def test_npy_is_decoded_for_npy_image_and_generic_types(content_type: str) -> None:
    (image,) = decode((content_type, NPY))
    np.testing.assert_array_equal(image, RGB)


def test_batch_array_gives_images_in_order() -> None:
    batch = np.stack((RGB, noise(5, 8, 3, seed=1), noise(5, 8, 3, seed=2)))
    np.testing.assert_array_equal(decode(("application/x-npy", npy_bytes(batch))), batch)


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        pytest.param("", b"", 400, "bad_request", id="empty"),
        pytest.param("image/png", b"", 400, "bad_request", id="empty-image"),
        pytest.param("application/x-npy", b"", 400, "bad_request", id="empty-array"),
        pytest.param("image/png", TRUNCATED, 400, "bad_request", id="truncated-image"),
        pytest.param("application/x-npy", PNG, 400, "bad_request", id="image-sent-as-array"),
        pytest.param("application/x-npy", NPY[:-1], 400, "bad_request", id="truncated-array"),
        pytest.param("", NPY[:-1], 400, "bad_request", id="truncated-array-by-its-bytes"),
        pytest.param("", b"?", 415, "unsupported_media_type", id="unknown-bytes"),
        pytest.param("text/plain", b"text", 415, "unsupported_media_type", id="text"),
        pytest.param(FORM, b"a=b&c=d", 415, "unsupported_media_type", id="a-web-form"),
        pytest.param("text/html", PNG, 415, "unsupported_media_type", id="html"),
        pytest.param("video/mp4", PNG, 415, "unsupported_media_type", id="video"),
        pytest.param("image/svg+xml", PNG, 415, "unsupported_media_type", id="svg"),
        pytest.param("application/*", PNG, 415, "unsupported_media_type", id="a-wildcard"),
        pytest.param("application/json", PNG, 400, "bad_request", id="image-sent-as-json"),
        pytest.param("png", PNG, 415, "unsupported_media_type", id="half-a-type"),
        pytest.param(
            "", npy_bytes(np.zeros((2, 2), dtype=np.int64)), 422, "unprocessable", id="int64"
        ),
    ],
)
def test_invalid_single_body_fails_the_request(
    content_type: str, body: bytes, status: int, code: str
) -> None:
    error = rejected((content_type, body))
    assert (error.status, error.code) == (status, code)


def test_unsupported_content_type_message_is_short_and_printable() -> None:
    error = rejected(("text/\x00\x1b[31m" + "x" * 5000, PNG))
    assert error.message.isprintable()
    assert len(error.message) < 150
    for media_type in ("image/jpeg", "image/tiff", "application/x-npy", "application/octet-stream"):
        assert media_type in error.hint


def test_no_parts_is_a_400() -> None:
    assert rejected().status == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"a=b", id="a-web-form"),
        pytest.param(PNG.translate(None, b"\r\n\0"), id="a-file-without-line-breaks-and-zeros"),
    ],
)
def test_body_that_curl_has_damaged_has_a_hint(body: bytes) -> None:
    assert "--data-binary" in rejected((FORM, body)).hint
    assert "--data-binary" not in rejected(("", body)).hint


def test_unfilled_file_input_is_skipped() -> None:
    (image,) = decode(("", b""), ("image/png", PNG), ("application/octet-stream", b""))
    np.testing.assert_array_equal(image, RGB)


def test_only_empty_parts_is_a_400() -> None:
    assert rejected(("image/png", b""), ("", b"")).status == 400


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        pytest.param(("image/png", TRUNCATED), 400, id="truncated"),
        pytest.param(("application/x-npy", RGB.tobytes()), 400, id="raw-values"),
        pytest.param(("image/png", image_bytes(noise(9, 9, 3), "PNG")), 413, id="too-many-pixels"),
        pytest.param(("text/plain", b"hello"), 415, id="unknown-bytes"),
        pytest.param(("text/html", PNG), 415, id="unsupported"),
        pytest.param(("", npy_bytes(np.zeros((2, 2), dtype=np.int64))), 422, id="int64"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_invalid_part_gets_an_error_in_its_place(
    bad: tuple[str, bytes], status: int, position: int
) -> None:
    parts = [("image/png", PNG), ("application/x-npy", NPY)]
    parts.insert(position, bad)
    slots = decode(*parts, max_image_pixels=40)
    expected: list[int | str] = ["image", "image"]
    expected.insert(position, status)
    assert statuses(slots) == expected
    for slot in slots[:position] + slots[position + 1 :]:
        np.testing.assert_array_equal(slot, RGB)


def test_images_and_batch_arrays_keep_their_order() -> None:
    batch = np.stack((noise(5, 8, 3, seed=1), noise(5, 8, 3, seed=2)))
    slots = decode(("", npy_bytes(batch)), ("image/png", TRUNCATED), ("", PNG))
    assert statuses(slots) == ["image", "image", 400, "image"]
    np.testing.assert_array_equal(slots[:2], batch)
    np.testing.assert_array_equal(slots[3], RGB)


@pytest.mark.parametrize(
    ("parts", "settings"),
    [
        pytest.param([("", PNG)], {"max_request_bytes": len(PNG)}, id="bytes"),
        pytest.param(
            [("", PNG), ("", NPY)], {"max_request_bytes": len(PNG) + len(NPY)}, id="bytes-of-parts"
        ),
        pytest.param([("", PNG)], {"max_image_pixels": 40}, id="pixels"),
        pytest.param([("", PNG)] * 3, {"max_images_per_request": 3}, id="parts"),
        pytest.param(
            [("", npy_bytes(np.stack((RGB, RGB)))), ("", PNG)],
            {"max_images_per_request": 3},
            id="images-of-parts",
        ),
    ],
)
def test_request_at_the_limit_is_accepted(
    parts: list[tuple[str, bytes]], settings: dict[str, int]
) -> None:
    assert set(statuses(decode(*parts, **settings))) == {"image"}


@pytest.mark.parametrize(
    ("parts", "settings", "setting"),
    [
        pytest.param(
            [("", PNG)], {"max_request_bytes": len(PNG) - 1}, "max_request_bytes", id="bytes"
        ),
        pytest.param(
            [("", PNG), ("", NPY)],
            {"max_request_bytes": len(PNG) + len(NPY) - 1},
            "max_request_bytes",
            id="bytes-of-parts",
        ),
        pytest.param([("", PNG)], {"max_image_pixels": 39}, "max_image_pixels", id="pixels"),
        pytest.param([("", NPY)], {"max_image_pixels": 39}, "max_image_pixels", id="array-pixels"),
        pytest.param(
            [("", PNG)] * 3, {"max_images_per_request": 2}, "max_images_per_request", id="parts"
        ),
        pytest.param(
            [("", npy_bytes(np.stack((RGB, RGB)))), ("", PNG)],
            {"max_images_per_request": 2},
            "max_images_per_request",
            id="images-of-parts",
        ),
        pytest.param(
            [("", npy_bytes(np.stack((RGB, RGB))))],
            {"max_images_per_request": 1},
            "max_images_per_request",
            id="images-of-an-array",
        ),
    ],
)
def test_request_over_a_limit_is_a_413_that_names_the_setting(
    parts: list[tuple[str, bytes]], settings: dict[str, int], setting: str
) -> None:
    error = rejected(*parts, **settings)
    assert (error.status, error.code) == (413, "too_large")
    assert setting in error.hint


class CountingBytes(bytes):
    """Bytes that record whether their first bytes were read."""

    was_read = False

    def startswith(self, *arguments: Any) -> bool:
        self.was_read = True
        return super().startswith(*arguments)


def test_too_many_parts_are_rejected_before_decoding() -> None:
    body = CountingBytes(PNG)
    rejected(*[("", body)] * 3, max_images_per_request=2)
    assert not body.was_read
    decode(*[("", body)] * 2, max_images_per_request=2)
    assert body.was_read


@pytest.mark.parametrize("image", [PNG, NPY], ids=["png", "npy"])
def test_pixels_over_the_limit_of_the_request_are_rejected_before_decoding(
    image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("d2serve.inputs.images.decode_with_pillow", fail)
    monkeypatch.setattr("d2serve.inputs.arrays._to_uint8", fail)
    assert rejected(("", image), max_request_pixels=RGB.size // 3 - 1).status == 413


def test_total_pixels_of_a_request_are_limited() -> None:
    pixels = RGB.shape[0] * RGB.shape[1]
    assert len(decode(("", PNG), ("", NPY), max_request_pixels=2 * pixels)) == 2
    error = rejected(("", PNG), ("", NPY), max_request_pixels=2 * pixels - 1)
    assert (error.status, error.code) == (413, "too_large")
    assert "max_request_pixels" in error.hint
