"""Items -> their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handler.errors import RequestError, bad_request, too_large
from handler.inputs import media_types
from handler.inputs.arrays import ArrayPictures, read_array
from handler.inputs.envelope import Item
from handler.inputs.image import decode_image
from handler.inputs.jpeg import JpegDecoder, decode_on_cpu
from handler.inputs.npy import MAGIC, read_npy
from handler.messages import Part
from handler.options import Options
from handler.pictures import Picture
from handler.settings import Settings


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
