"""A request's body -> its pictures, each by its own type."""

from handler.errors import RequestError, bad_request, too_large, unsupported_media_type
from handler.inputs.image import decode_image
from handler.inputs.npy import MAGIC, decode_npy
from handler.messages import HttpRequest, Part
from handler.pictures import Picture
from handler.settings import Settings

IMAGE_TYPES = tuple(
    f"image/{subtype}" for subtype in ("jpeg", "jpg", "png", "webp", "bmp", "gif", "tiff")
)
NPY_TYPE = "application/x-npy"
EITHER_TYPES = ("application/octet-stream", "application/x-image", "")


def decode_request(request: HttpRequest, settings: Settings) -> list[Picture | RequestError]:
    """The pictures of a request, UInt8[H, W, 3] RGB each, in the order sent.

    Of several parts, one that cannot be used becomes an error in its place.

    Raises:
        RequestError: nothing of the request can be used.
    """
    size = sum(len(part.body) for part in request.parts)
    if size == 0:
        raise bad_request("the body is empty", "send an image or an array written by numpy.save")
    if size > settings.max_request_bytes:
        raise too_large(
            f"the body has {size} bytes; at most {settings.max_request_bytes} are accepted",
            "send less, or raise max_request_bytes in the archive's model-config.yaml",
        )
    _require_few(len(request.parts), settings)
    if len(request.parts) == 1:
        pictures: list[Picture | RequestError] = [*_decode_part(request.parts[0], settings)]
    else:
        pictures = [item for part in request.parts for item in _try_part(part, settings)]
    _require_few(len(pictures), settings)
    return pictures


def _require_few(count: int, settings: Settings) -> None:
    if count > settings.max_images_per_request:
        raise too_large(
            f"the request holds {count} pictures; at most "
            f"{settings.max_images_per_request} are accepted",
            "send fewer at a time, or raise max_images_per_request in model-config.yaml",
        )


def _try_part(part: Part, settings: Settings) -> list[Picture] | list[RequestError]:
    try:
        return _decode_part(part, settings)
    except RequestError as error:
        return [error]


def _decode_part(part: Part, settings: Settings) -> list[Picture]:
    media_type = part.content_type.split(";")[0].strip().lower()
    if not part.body:
        raise bad_request("a part of the body is empty", "send the file's bytes")
    if media_type in EITHER_TYPES:
        media_type = NPY_TYPE if part.body.startswith(MAGIC) else IMAGE_TYPES[0]
    if media_type in IMAGE_TYPES:
        return [decode_image(part.body, settings.max_image_pixels)]
    if media_type == NPY_TYPE:
        return decode_npy(part.body, settings.max_image_pixels, settings.max_images_per_request)
    raise unsupported_media_type(
        f"Content-Type {_quoted(media_type)} is not supported",
        f"send one of {', '.join((*IMAGE_TYPES, NPY_TYPE, *EITHER_TYPES[:2]))}",
    )


def _quoted(media_type: str) -> str:
    """The client's words, short and printable."""
    return repr(media_type[:60])
