"""A request's body, by its Content-Type -> images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2serve.detections import Picture
from d2serve.errors import RequestError, bad_request, too_large, unsupported_media_type
from d2serve.inputs import instances as media_types
from d2serve.inputs.arrays import MAGIC, ArrayPictures, read_array, read_npy
from d2serve.inputs.images import JpegDecoder, decode_image, decode_on_cpu
from d2serve.inputs.instances import Envelope, Item
from d2serve.inputs.json_body import read_json, read_json_lines
from d2serve.messages import HttpRequest, Options, Part
from d2serve.settings import Settings


def read_body(request: HttpRequest, settings: Settings) -> Envelope:
    """What the body, or the files of a form, hold.

    Raises:
        RequestError: nothing of the request can be used; of several files, a bad one becomes an
            error in its place.
    """
    _require_acceptable_size(request, settings)
    if len(request.parts) == 1:
        return _read_part(request.parts[0], settings)
    envelopes = [_try_part(part, settings) for part in request.parts]
    return Envelope(
        items=tuple(item for envelope in envelopes for item in envelope.items),
        parameters={
            name: envelope.parameters[name]
            for envelope in envelopes
            for name in envelope.parameters
        },
    )


def _require_acceptable_size(request: HttpRequest, settings: Settings) -> None:
    if media_types.essence(request.headers.get("content-type", "")) == media_types.FORM:
        raise unsupported_media_type(
            "a form without files was sent",
            "with curl, use -T file, or --data-binary @file with a Content-Type of its own",
        )
    size = sum(len(part.body) for part in request.parts)
    if size == 0:
        raise bad_request("the body is empty", "send an image or an array written by numpy.save")
    if size > settings.max_request_bytes:
        raise too_large(
            f"the body has {size} bytes; at most {settings.max_request_bytes} are accepted",
            "send less, or raise max_request_bytes in the archive's model-config.yaml",
        )


def _try_part(part: Part, settings: Settings) -> Envelope:
    try:
        return _read_part(part, settings)
    except RequestError as error:
        return Envelope((error,))


def _read_part(part: Part, settings: Settings) -> Envelope:
    media_type = media_types.essence(part.content_type)
    if not part.body:
        raise bad_request("a part of the body is empty", "send the file's bytes")
    if media_type == media_types.JSON:
        return read_json(part.body, settings)
    if media_type == media_types.JSON_LINES:
        return read_json_lines(part.body, settings)
    if media_type in (*media_types.IMAGES, media_types.NPY, *media_types.EITHER):
        return Envelope((part,))
    raise unsupported_media_type(
        "the Content-Type is not supported", f"send one of {', '.join(media_types.NAMED)}"
    )


@dataclass(frozen=True)
class Decoded:
    """A request's pictures.

    Attributes:
        pictures: UInt8[H, W, 3] RGB each, in the order sent, or why there is none in this place.
        value_ranges: the range of values of each array among the items.
        is_batch: whether the only item is an array with a leading N.
    """

    pictures: tuple[Picture | RequestError, ...]
    value_ranges: tuple[str, ...]
    is_batch: bool = False


def decode_items(
    items: Sequence[Item],
    options: Options,
    settings: Settings,
    decode_jpeg: JpegDecoder = decode_on_cpu,
) -> Decoded:
    """Decodes all items; of several, one that cannot be used becomes an error in its place.

    Raises:
        RequestError: the only item cannot be used, or there is more than the settings allow.
    """
    pictures: list[Picture | RequestError] = []
    value_ranges: list[str] = []
    is_batch = False
    _require_few(len(items), settings)
    for item in items:
        try:
            found = _decode(item, options, settings, decode_jpeg)
        except RequestError as error:
            if len(items) == 1:
                raise
            pictures.append(error)
            continue
        if isinstance(found, ArrayPictures):
            value_ranges.append(found.value_range)
            is_batch = found.is_batch and len(items) == 1
        pictures += found.pictures if isinstance(found, ArrayPictures) else [found]
        _require_few(len(pictures), settings)
        _require_few_pixels(pictures, settings)
    return Decoded(tuple(pictures), tuple(value_ranges), is_batch)


def _decode(
    item: Item, options: Options, settings: Settings, decode_jpeg: JpegDecoder
) -> ArrayPictures | Picture:
    if isinstance(item, RequestError):
        raise item
    if isinstance(item, np.ndarray):
        return read_array(item, options, settings)
    if _is_npy(item):
        array = read_npy(item.body, settings.max_npy_header_bytes)
        return read_array(array, options, settings)
    return decode_image(item.body, settings.max_image_pixels, decode_jpeg)


def _is_npy(part: Part) -> bool:
    media_type = media_types.essence(part.content_type)
    untold = media_type in media_types.EITHER and part.body.startswith(MAGIC)
    return untold or media_type == media_types.NPY


def _require_few(count: int, settings: Settings) -> None:
    if count == 0:
        raise bad_request("the request holds no picture", "send one at least")
    if count > settings.max_images_per_request:
        raise too_large(
            f"the request holds {count} pictures; at most "
            f"{settings.max_images_per_request} are accepted",
            "send fewer at a time, or raise max_images_per_request in model-config.yaml",
        )


def _require_few_pixels(pictures: Sequence[Picture | RequestError], settings: Settings) -> None:
    pixels = sum(
        picture.shape[0] * picture.shape[1]
        for picture in pictures
        if not isinstance(picture, RequestError)
    )
    if pixels > settings.max_request_pixels:
        raise too_large(
            f"the request's pictures have {pixels} pixels and more together; at most "
            f"{settings.max_request_pixels} are accepted",
            "send fewer at a time, or raise max_request_pixels in model-config.yaml",
        )
