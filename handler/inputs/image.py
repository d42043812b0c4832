"""Encoded images -> UInt8[H, W, 3] RGB."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from handler.errors import (
    RequestError,
    bad_request,
    too_large,
    unprocessable,
    unsupported_media_type,
)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")


def decode_image(body: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decodes the first frame, upright (EXIF orientation applied), as 8-bit RGB.

    The bytes decide on the format. Alpha is dropped, as Detectron2's `read_image` does.

    Raises:
        RequestError: 415 no known format, 413 more than `max_pixels` by the header, 400 damaged,
            422 a pixel type that is no picture.
    """
    image = _open(body, max_pixels)
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise _too_many_pixels(f"{image.width}x{image.height}", max_pixels)
    try:
        upright = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(upright))
    except RequestError:
        raise
    except Exception as error:  # damaged bytes make Pillow's decoders raise almost anything
        raise _damaged() from error


def _open(body: bytes, max_pixels: int) -> Image.Image:
    try:
        return Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError as error:
        if body.startswith(SIGNATURES):
            raise _damaged() from error
        raise unsupported_media_type(
            "the body is not an image of a known format",
            f"send one of {', '.join(FORMATS)}, or an array written by numpy.save",
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("larger", max_pixels) from error
    except Exception as error:
        raise _damaged() from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise unprocessable(
            "the image has 32 bits per channel", "send 8 or 16 bits per channel, or an NPY array"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits at 255 instead of scaling.
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    # Transparent palette entries or colours go as alpha does; Pillow warns of some.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _too_many_pixels(size: str, max_pixels: int) -> RequestError:
    return too_large(
        f"the image is {size}; at most {max_pixels} pixels are accepted",
        "send a smaller picture, or raise max_image_pixels in the archive's model-config.yaml",
    )


def _damaged() -> RequestError:
    return bad_request("the image is truncated or damaged", "send the file whole and unchanged")
