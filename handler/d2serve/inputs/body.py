"""A request's body, by its Content-Type -> images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2serve.detections import RGBImage
from d2serve.errors import RequestError, bad_request, too_large, unsupported_media_type
from d2serve.inputs.arrays import NPY_MAGIC, ArrayImages, read_array, read_npy
from d2serve.inputs.images import JpegDecoder, decode_image, decode_on_cpu
from d2serve.inputs.json_body import read_json, read_json_lines
from d2serve.inputs.json_values import Item, ParsedBody
from d2serve.messages import (
    FORM_TYPE,
    GENERIC_TYPES,
    IMAGE_TYPES,
    JSON_LINES_TYPE,
    JSON_TYPE,
    NPY_TYPE,
    REQUEST_TYPES,
    HttpRequest,
    Options,
    Part,
    media_type_of,
)
from d2serve.settings import Settings


@dataclass(frozen=True)
class DecodedImages:
    """The images of one request.

    Attributes:
        images: UInt8[H, W, 3] RGB each, in the order sent, or the error in its place.
        value_ranges: the value range of each array among the items.
        is_batch: whether the only item is an array with a leading N.
    """

    images: tuple[RGBImage | RequestError, ...]
    value_ranges: tuple[str, ...]
    is_batch: bool = False


def read_body(request: HttpRequest, settings: Settings) -> ParsedBody:
    """Parse the body, or the files of a form, without decoding the images.

    Raises:
        RequestError: the request cannot be used; an invalid one of several files becomes an error
            in its place.
    """
    _check_size(request, settings)
    if len(request.parts) == 1:
        return _read_part(request.parts[0], settings)
    bodies = [_read_part_or_error(part, settings) for part in request.parts]
    return ParsedBody(
        items=tuple(item for body in bodies for item in body.items),
        parameters={name: value for body in bodies for name, value in body.parameters.items()},
    )


def decode_items(
    items: Sequence[Item],
    options: Options,
    settings: Settings,
    decode_jpeg: JpegDecoder = decode_on_cpu,
) -> DecodedImages:
    """Decode all items; an invalid one of several becomes an error in its place.

    Raises:
        RequestError: the only item is invalid, or the images exceed the limits of the settings.
    """
    images: list[RGBImage | RequestError] = []
    value_ranges: list[str] = []
    is_batch = False
    _check_image_count(len(items), settings)
    for item in items:
        try:
            decoded = _decode(item, options, settings, decode_jpeg)
        except RequestError as error:
            if len(items) == 1:
                raise
            images.append(error)
            continue
        if isinstance(decoded, ArrayImages):
            images += decoded.images
            value_ranges.append(decoded.value_range)
            is_batch = decoded.is_batch and len(items) == 1
        else:
            images.append(decoded)
        _check_image_count(len(images), settings)
        _check_pixel_count(images, settings)
    return DecodedImages(tuple(images), tuple(value_ranges), is_batch)


def _check_size(request: HttpRequest, settings: Settings) -> None:
    if media_type_of(request.headers.get("content-type", "")) == FORM_TYPE:
        raise unsupported_media_type(
            f"the Content-Type is {FORM_TYPE}, which cannot carry files",
            "with curl, use -T file, or --data-binary @file with the file's Content-Type",
        )
    size = sum(len(part.body) for part in request.parts)
    if size == 0:
        raise bad_request("the body is empty", "send an image or an array written by numpy.save")
    if size > settings.max_request_bytes:
        raise too_large(
            f"the body has {size} bytes, the limit is {settings.max_request_bytes}",
            "send less, or raise max_request_bytes in the archive's model-config.yaml",
        )


def _read_part_or_error(part: Part, settings: Settings) -> ParsedBody:
    try:
        return _read_part(part, settings)
    except RequestError as error:
        return ParsedBody((error,))


def _read_part(part: Part, settings: Settings) -> ParsedBody:
    media_type = media_type_of(part.content_type)
    if not part.body:
        raise bad_request("a file of the form is empty", "send the file's bytes")
    if media_type == JSON_TYPE:
        return read_json(part.body, settings)
    if media_type == JSON_LINES_TYPE:
        return read_json_lines(part.body, settings)
    if media_type in (*IMAGE_TYPES, NPY_TYPE, *GENERIC_TYPES):
        return ParsedBody((part,))
    raise unsupported_media_type(
        "the Content-Type is not supported", f"send one of {', '.join(REQUEST_TYPES)}"
    )


def _decode(
    item: Item, options: Options, settings: Settings, decode_jpeg: JpegDecoder
) -> ArrayImages | RGBImage:
    if isinstance(item, RequestError):
        raise item
    if isinstance(item, np.ndarray):
        return read_array(item, options, settings)
    if _is_npy(item):
        return read_array(read_npy(item.body), options, settings)
    return decode_image(item.body, settings.max_image_pixels, decode_jpeg)


def _is_npy(part: Part) -> bool:
    media_type = media_type_of(part.content_type)
    by_bytes = media_type in GENERIC_TYPES and part.body.startswith(NPY_MAGIC)
    return by_bytes or media_type == NPY_TYPE


def _check_image_count(count: int, settings: Settings) -> None:
    if count == 0:
        raise bad_request("the request has no image", "send at least one")
    if count > settings.max_images_per_request:
        raise too_large(
            f"the request has {count} images, the limit is {settings.max_images_per_request}",
            "send fewer per request, or raise max_images_per_request in model-config.yaml",
        )


def _check_pixel_count(images: Sequence[RGBImage | RequestError], settings: Settings) -> None:
    decoded = (image for image in images if not isinstance(image, RequestError))
    pixels = sum(image.shape[0] * image.shape[1] for image in decoded)
    if pixels > settings.max_request_pixels:
        raise too_large(
            f"the request's images have at least {pixels} pixels in total, the limit is "
            f"{settings.max_request_pixels}",
            "send fewer per request, or raise max_request_pixels in model-config.yaml",
        )
