"""A request's body, by its Content-Type and first bytes -> items -> images."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from d2serve.detections import RGBImage
from d2serve.errors import RequestError, bad_request, too_large, unsupported_media_type
from d2serve.inputs.arrays import read_array
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.images import decode_image
from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu
from d2serve.inputs.json_body import read_json, read_json_lines
from d2serve.inputs.json_values import Base64Text, Item, ParsedBody, parse_json
from d2serve.inputs.multipart import read_form
from d2serve.inputs.npy import NPY_MAGIC, read_npy
from d2serve.messages import (
    BINARY_HEADER,
    FORM_TYPE,
    GENERIC_TYPES,
    IMAGE_TYPES,
    JSON_LINES_TYPE,
    JSON_TYPE,
    MULTIPART_TYPE,
    NPY_TYPE,
    OUTPUT_NAMES,
    REQUEST_TYPES,
    HttpRequest,
    Options,
    Part,
    ResponseEnvelope,
    Style,
    body_type_of,
    media_type_of,
)
from d2serve.settings import Settings

# Images and NPY files start with other bytes.
JSON_START = re.compile(rb'(?:\xef\xbb\xbf)?[ \t\r\n]*[{\["]')
# Types whose bytes decide: a PNG that a client declares as JPEG is a PNG.
DETECTED_TYPES = (*IMAGE_TYPES, *GENERIC_TYPES)
ENCODINGS = (
    "aws-chunked", "base64", "br", "compress", "deflate", "gzip", "utf-8", "x-compress", "x-gzip",
    "zstd",
)  # fmt: skip
CURL_HINT = "with curl, use -T file, or --data-binary @file with the file's Content-Type"


@dataclass(frozen=True)
class DecodedItem:
    """The images of one item.

    Attributes:
        images: UInt8[H, W, 3] RGB each, or with a fourth channel; several for an array with a
            leading N.
        value_range: the range that an array's values were read in; None for an encoded image.
        is_batch: whether the item is an array with a leading N, also of 1.
    """

    images: tuple[RGBImage, ...]
    value_range: str | None = None
    is_batch: bool = False


def read_body(request: HttpRequest, settings: Settings) -> ParsedBody:
    """Parse the body, or the files of a form, without decoding the images.

    File inputs of a form that are not filled are skipped: a browser sends a file without name and
    content for them. The fields of a form are parameters, as `parameters` in JSON.

    Raises:
        RequestError: the request cannot be used; an invalid one of several files becomes an error
            in its place.
    """
    _check_encoding(request.headers.get("content-encoding", ""))
    _check_size(request, settings)
    parts, fields = _parts_of(request)
    if len(parts) > 1:
        bodies = [_read_part_or_error(part, settings) for part in parts]
        in_bodies = {name: value for body in bodies for name, value in body.parameters.items()}
        items = tuple(item for body in bodies for item in body.items)
        return ParsedBody(items, {**fields, **in_bodies})
    size = request.headers.get(BINARY_HEADER.lower())
    if size is None or media_type_of(request.headers.get("content-type", "")) == MULTIPART_TYPE:
        body = _read_part(parts[0], settings)
        return replace(body, parameters={**fields, **body.parameters})
    return _read_tensors(parts[0].body, size, settings)


def decode_item(
    item: Item,
    options: Options,
    settings: Settings,
    budget: RequestBudget,
    decode_jpeg: JpegDecoder = decode_on_cpu,
    channels: int = 3,
) -> DecodedItem:
    """Decode one item of a request; safe for several threads.

    Args:
        item: of a parsed body.
        options: `input_layout`, `input_color` and `input_range` of arrays.
        settings: the limits of a single image.
        budget: the request's; the caller has taken one image for each item of the request. The
            other images of a batch, and all pixels, are taken before they are decoded.
        decode_jpeg: see `decode_image`.
        channels: of the network's input; with 4, images keep a fourth channel.

    Raises:
        RequestError: the item's error, 400, 413, 415 or 422. The whole request fails if
            `budget.error` is set.

    Examples:
        >>> import numpy as np
        >>> budget = RequestBudget(Settings())
        >>> budget.take_images(1)
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> decoded = decode_item(image, Options(0.05, 100), Settings(), budget)
        >>> [image.shape for image in decoded.images], decoded.value_range
        ([(4, 6, 3)], '0-255')
    """
    if isinstance(item, RequestError):
        raise item
    if isinstance(item, Base64Text):
        item = item.decode()
    if isinstance(item, Part) and not _is_npy(item):
        try:
            image = decode_image(
                item.body, settings.max_image_pixels, decode_jpeg, budget, keep_alpha=channels == 4
            )
        except RequestError as error:
            if media_type_of(item.content_type) == FORM_TYPE and error is not budget.error:
                raise _with_curl_hint(error) from error
            raise
        return DecodedItem((image,))
    array = read_npy(item.body) if isinstance(item, Part) else item
    read = read_array(array, options, settings, budget, channels)
    return DecodedItem(read.images, read.value_range, read.is_batch)


def _parts_of(request: HttpRequest) -> tuple[list[Part], Mapping[str, str]]:
    """The parts that hold something or have a file name, and the fields of a form.

    Raises:
        RequestError: 400 the form is malformed or empty, 415 a part of it is compressed.
    """
    parts, fields = [part for part in request.parts if part.body], {}
    if len(parts) == 1 and media_type_of(parts[0].content_type) == MULTIPART_TYPE:
        form = read_form(parts[0].content_type, parts[0].body)
        for file in form.files:
            _check_encoding(file.encoding)
        parts, fields = [file.as_body() for file in form.files], form.fields
    if not any(part.body for part in parts):
        raise bad_request("the form has no file with content", "send an image in the form")
    return parts, fields


def _check_encoding(encodings: str) -> None:
    """Check a Content-Encoding.

    Raises:
        RequestError: 415 the content is compressed.
    """
    for encoding in (text.strip() for text in encodings.lower().split(",")):
        if encoding not in ("", "identity"):
            # Errors repeat no text of clients, except registered names.
            name = encoding if encoding in ENCODINGS else "unknown"
            error = unsupported_media_type(
                f"the Content-Encoding is {name}; only identity is accepted",
                "send the body without compression",
            )
            error.headers["Accept-Encoding"] = "identity"
            raise error


def _check_size(request: HttpRequest, settings: Settings) -> None:
    size = sum(len(part.body) for part in request.parts)
    if size > settings.max_request_bytes:
        raise too_large(
            f"the body has {size} bytes, the limit is {settings.max_request_bytes}",
            "send less, or raise max_request_bytes in the archive's model-config.yaml",
        )
    if size:
        return
    if media_type_of(request.headers.get("content-type", "")) == FORM_TYPE:
        # TorchServe parses such a body itself.
        raise unsupported_media_type(
            f"the Content-Type is {FORM_TYPE}, and the body is not a file", CURL_HINT
        )
    raise bad_request("the body is empty", "send an image or an array written by numpy.save")


def _read_part_or_error(part: Part, settings: Settings) -> ParsedBody:
    try:
        return _read_part(part, settings)
    except RequestError as error:
        return ParsedBody((error,))


def _read_part(part: Part, settings: Settings) -> ParsedBody:
    if not part.body:
        raise bad_request("a file of the form is empty", "send each image with its content")
    media_type = body_type_of(part.content_type)
    if media_type in DETECTED_TYPES and JSON_START.match(part.body):
        media_type = JSON_LINES_TYPE if _is_json_lines(part.body, settings) else JSON_TYPE
    if media_type == JSON_TYPE:
        return read_json(part.body, settings)
    if media_type == JSON_LINES_TYPE:
        return read_json_lines(part.body, settings)
    if media_type in (*DETECTED_TYPES, NPY_TYPE):
        return ParsedBody((part,))
    raise unsupported_media_type(
        "the Content-Type is not supported", f"send one of {', '.join(REQUEST_TYPES)}"
    )


def _is_json_lines(body: bytes, settings: Settings) -> bool:
    """Return whether JSON holds a complete document on its first line and another one after it."""
    start = len(body) - len(body.lstrip())
    end = body.find(b"\n", start)
    if end < 0 or not JSON_START.match(body, end):
        return False
    try:
        parse_json(body[start:end], settings)
    except RequestError:
        return False
    return True


def _read_tensors(body: bytes, size: str, settings: Settings) -> ParsedBody:
    """An Open Inference request: JSON of `size` bytes, followed by tensors in binary."""
    json_bytes = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else -1
    if not 0 <= json_bytes <= len(body):
        raise bad_request(
            f"the header {BINARY_HEADER} is not an integer from 0 to {len(body)}, the size of the "
            "body",
            "send the number of bytes of the JSON at the beginning of the body",
        )
    if json_bytes == 0:  # Triton's raw binary request: the body is the only tensor
        envelope = ResponseEnvelope(Style.OPEN_INFERENCE, binary_outputs=frozenset(OUTPUT_NAMES))
        return ParsedBody((Part(GENERIC_TYPES[0], body),), envelope=envelope)
    return read_json(body[:json_bytes], settings, memoryview(body)[json_bytes:])


def _is_npy(part: Part) -> bool:
    return body_type_of(part.content_type) == NPY_TYPE or part.body.startswith(NPY_MAGIC)


def _with_curl_hint(error: RequestError) -> RequestError:
    """The error of a file that `curl -d` has probably damaged: it drops line breaks and zeros."""
    return RequestError(error.status, error.code, error.message, f"{error.hint}; {CURL_HINT}")
