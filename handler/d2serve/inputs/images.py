"""Encoded images -> UInt8[H, W, 3] RGB."""

import logging
from collections.abc import Callable
from traceback import walk_tb
from types import FrameType

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from d2serve.detections import RGBImage
from d2serve.errors import (
    RequestError,
    bad_request,
    too_large,
    unprocessable,
    unsupported_media_type,
)
from d2serve.inputs import strips
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.formats import bmp, gif, jpeg, tiff, webp
from d2serve.inputs.formats.image_parts import (
    PILLOW_ERRORS,
    WHITE_16_BIT,
    ImageParts,
    damaged,
    orientation_in,
)
from d2serve.inputs.formats.tiff import unsupported
from d2serve.inputs.formats.unsupported import BASE64, unsupported_kind
from d2serve.inputs.image_guard import ReadLimitedFile, image_parts
from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu, is_fault_of_decoder

logger = logging.getLogger(__name__)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# Beginnings of damaged files that are still recognized.
SIGNATURES = (jpeg.START + b"\xff", b"\x89PNG", bmp.SIGNATURE, gif.SIGNATURE, *tiff.SIGNATURES)
# torchvision decodes these modes like Pillow, in half the time. It decodes CMYK differently. PNGs
# stay with Pillow: libpng inflates all data after the last row, minutes of it in a hostile file.
TORCHVISION_MODES = ("L", "RGB")
# Pillow's messages for a build without a decoder, and for a failed allocation.
PILLOW_FAULTS = ("not available", "out of memory")
# EXIF orientations except the first, which is upright.
TO_UPRIGHT: dict[object, Callable[[RGBImage], RGBImage]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def decode_image(
    body: bytes,
    max_pixels: int,
    decode_jpeg: JpegDecoder = decode_on_cpu,
    budget: RequestBudget | None = None,
    *,
    keep_alpha: bool = False,
) -> RGBImage:
    """Decode the first frame of an image file, upright (EXIF orientation applied), as 8-bit RGB.

    The first bytes determine the format. Alpha is dropped, as in Detectron2's `read_image`, unless
    it is kept. Metadata are ignored, except an intact orientation.

    Args:
        body: the file.
        max_pixels: maximum of width x height x frames, by the header.
        decode_jpeg: for JPEGs with the modes in TORCHVISION_MODES.
        budget: the request's pixels; those of the first frame are taken before it is decoded.
        keep_alpha: keep the alpha channel of an image that has one: UInt8[H, W, 4].

    Raises:
        RequestError: 415 unknown format, 413 more than `max_pixels` in all frames by the header or
            than the budget, 400 damaged, 422 unsupported pixels.
        ImportError: a decoder is missing in this environment.
        Exception: another fault of this process, such as a lack of memory.
    """
    parts = image_parts(body)
    image = _open(parts, max_pixels)
    _check_pixels(image, parts.frames, max_pixels)
    if budget is not None:
        budget.take_pixels(image.width * image.height)
    pixels = _decode(image, parts, decode_jpeg, keep_alpha)
    return _upright(pixels, parts.orientation)


def decode_opened(image: Image.Image, *, keep_alpha: bool = False) -> RGBImage:
    """Decode an image that Pillow has opened, upright, as 8-bit RGB; the image is not changed.

    Args:
        image: of any mode.
        keep_alpha: see `decode_image`.

    Raises:
        RequestError: 400 damaged, 422 unsupported pixels.
        Exception: a fault of this process, such as a lack of memory.
    """
    try:
        pixels = decode_with_pillow(image.copy(), keep_alpha=keep_alpha)
    except PILLOW_ERRORS as error:
        _raise_fault(error)
        raise bad_request("the image cannot be decoded", "use a complete image") from error
    return _upright(pixels, orientation_in(image))


def is_for_torchvision(image: Image.Image) -> bool:
    """Return whether torchvision decodes this opened image like Pillow, and safely."""
    return image.format in ("JPEG", "MPO") and image.mode in TORCHVISION_MODES


def decode_with_pillow(
    image: Image.Image, white: int = WHITE_16_BIT, *, keep_alpha: bool = False
) -> RGBImage:
    """Decode an opened image to RGB, in the orientation of the file.

    Args:
        image: of any mode.
        white: the largest value of a grey image with 16 bits per pixel.
        keep_alpha: see `decode_image`.

    Raises:
        RequestError: 422 unsupported pixel type.
        Exception: the file is damaged.
    """
    if image.mode in ("I", "F"):
        raise unprocessable(
            "the image has 32 bits per channel", "send 8 or 16 bits per channel, or an NPY array"
        )
    is_16_bit = image.mode.startswith("I;16")
    mode = "RGBA" if keep_alpha and not is_16_bit and image.has_transparency_data else "RGB"
    if mode == "RGB":
        # Transparent palette entries are dropped like alpha; Pillow warns about some of them.
        image.info.pop("transparency", None)
    image.load()
    width, height = image.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    rows = max(1, strips.STRIP_VALUES // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        # Pillow's own conversion clips 16 bits at 255 instead of scaling.
        converted = _from_16_bits(strip, white) if is_16_bit else np.asarray(strip.convert(mode))
        pixels[top : top + rows] = converted
    return pixels


def _from_16_bits(image: Image.Image, white: int) -> npt.NDArray[np.uint8]:
    """UInt8[H, W, 1] of a grey image with values from 0 to `white`."""
    levels = np.asarray(image).astype(np.uint32).clip(max=white) * 255
    return ((levels + white // 2) // white).astype(np.uint8)[:, :, None]


def _upright(pixels: RGBImage, orientation: object) -> RGBImage:
    return np.ascontiguousarray(TO_UPRIGHT.get(orientation, np.asarray)(pixels))


def _open(parts: ImageParts, max_pixels: int) -> Image.Image:
    try:
        return Image.open(ReadLimitedFile(parts.body), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(
            "the image is larger than the decoder accepts", max_pixels
        ) from error
    except PILLOW_ERRORS as error:
        _raise_fault(error)
        if parts.kind:
            raise unsupported(parts.kind) from error
        is_unknown = isinstance(error, UnidentifiedImageError) and not _is_known(parts.body)
        raise _unknown(parts.body) if is_unknown else damaged() from error


def _decode(
    image: Image.Image, parts: ImageParts, decode_jpeg: JpegDecoder, keep_alpha: bool
) -> RGBImage:
    refusal: Exception | None = None
    if is_for_torchvision(image):
        try:
            return decode_jpeg(parts.body)
        except RuntimeError as error:
            if is_fault_of_decoder(error):
                raise
            refusal = error  # Pillow decides whether the file is damaged
    try:
        pixels = decode_with_pillow(image, parts.white, keep_alpha=keep_alpha)
    except PILLOW_ERRORS as error:
        _raise_fault(error)
        raise unsupported(parts.kind) if parts.is_rare else damaged() from error
    if refusal is not None:
        logger.warning("torchvision failed, Pillow decoded the JPEG", exc_info=refusal)
    return np.subtract(255, pixels, out=pixels) if parts.is_inverted else pixels


def _raise_fault(error: Exception) -> None:
    """Raise an error again if it is a fault of this process, not of the file."""
    is_ours = not any(_is_of_pillow(frame) for frame, _ in walk_tb(error.__traceback__))
    if is_ours or (
        isinstance(error, OSError)
        and (error.errno is not None or any(sign in str(error) for sign in PILLOW_FAULTS))
    ):
        raise error


def _is_of_pillow(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("PIL.")


def _check_pixels(image: Image.Image, frames: int, max_pixels: int) -> None:
    if image.width * image.height * frames > max_pixels:
        several = f" in {frames} frames" if frames > 1 else ""
        raise _too_many_pixels(f"the image is {image.width}x{image.height}{several}", max_pixels)


def _is_known(body: bytes) -> bool:
    is_webp = body.startswith(webp.RIFF) and webp.WEBP.startswith(body[8:12])
    return body.startswith(SIGNATURES) or is_webp


def _unknown(body: bytes) -> RequestError:
    kind = unsupported_kind(body)
    problem = (
        f"the first bytes are those of {kind}, which is not supported"
        if kind
        else "the body's first bytes match no supported image format"
    )
    hint = f"send one of {', '.join(FORMATS)}, or an array written by numpy.save"
    if kind == BASE64:
        hint += '; send base64 as JSON, such as {"image": "..."}'
    return unsupported_media_type(problem, hint)


def _too_many_pixels(problem: str, max_pixels: int) -> RequestError:
    return too_large(
        f"{problem}, the limit is {max_pixels} pixels",
        "send a smaller image, or raise max_image_pixels in the archive's model-config.yaml",
    )
