"""Encoded images -> UInt8[H, W, 3] RGB."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from torch import Tensor

from d2serve.detections import Picture
from d2serve.errors import (
    RequestError,
    bad_request,
    too_large,
    unprocessable,
    unsupported_media_type,
)
from d2serve.inputs.image_guard import guarded_file, jpeg_has_end
from d2serve.settings import SettingsError
from d2serve.torchvision_ops import load_operators

# Bytes -> UInt8[H, W, 3] RGB, as the picture lies in the file.
JpegDecoder: TypeAlias = Callable[[bytes], Picture]
logger = logging.getLogger(__name__)
OPERATORS = load_operators("image", "image", ["decode_jpeg"])
RGB = 3  # as `torchvision.io.ImageReadMode` numbers it


def jpeg_decoder(decode: str, device: torch.device) -> JpegDecoder:
    """What `handler.decode` asks for.

    Args:
        decode: `cpu` or `device`.
        device: where the network runs.

    Raises:
        SettingsError: the device is no GPU, or torchvision has nothing to decode with on one.
    """
    if decode == "cpu":
        return decode_on_cpu
    if device.type != "cuda":
        raise SettingsError(
            f"handler setting decode is {decode!r}, which is for GPUs, and the network runs on the "
            f"{device.type.upper()}; use cpu"
        )
    if not hasattr(OPERATORS, "decode_jpegs_cuda"):
        raise SettingsError(
            f"handler setting decode is {decode!r}, and this torchvision has no nvJPEG; use cpu"
        )
    return lambda body: decode_on_gpu(body, device)


def decode_on_cpu(body: bytes) -> Picture:
    """UInt8[H, W, 3] RGB of a JPEG, as it lies in the file.

    Raises:
        RuntimeError: the file is damaged.
    """
    upright = False  # that is done for all formats alike
    return _interleaved(OPERATORS.decode_jpeg(_encoded(body), RGB, upright))


def decode_on_gpu(body: bytes, device: torch.device) -> Picture:
    """As `decode_on_cpu`, which also decodes what nvJPEG does not: an arithmetic coding, or a file
    that breaks off.

    Raises:
        RuntimeError: the file is damaged.
    """
    if not jpeg_has_end(body):
        return decode_on_cpu(body)
    try:
        # On a stream of its own, or the copy would wait for the network.
        with torch.cuda.stream(torch.cuda.Stream(device)):
            [pixels] = OPERATORS.decode_jpegs_cuda([_encoded(body)], RGB, device)
            return _interleaved(pixels)
    except RuntimeError as error:
        logger.info("nvJPEG gave up, so the CPU decodes: %s", error)
        return decode_on_cpu(body)


def _encoded(body: bytes) -> Tensor:
    # From a copy: torch wants memory that could be written to.
    return torch.frombuffer(bytearray(body), dtype=torch.uint8)


def _interleaved(pixels: Tensor) -> Picture:
    picture: Picture = pixels.permute(1, 2, 0).cpu().numpy()
    return picture


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*")
# Only its ninth byte tells what a RIFF file holds.
RIFF, WEBP = b"RIFF", b"WEBP"
# torchvision reads these as Pillow does, in half the time. CMYK it would read otherwise. PNG stays
# with Pillow: libpng inflates all that follows the last row, minutes of it in a hostile file.
TORCHVISION_MODES = ("L", "RGB")
ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
MOST_FRAMES = 1000
# EXIF's orientations, but the first, which is upright.
UPRIGHT: dict[object, Callable[[Picture], Picture]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def decode_image(body: bytes, max_pixels: int, decode_jpeg: JpegDecoder = decode_on_cpu) -> Picture:
    """Decodes the first frame, upright (EXIF orientation applied), as 8-bit RGB.

    The bytes decide on the format. Alpha is dropped, as Detectron2's `read_image` does.

    Args:
        body: the file.
        max_pixels: width x height x frames, by the header.
        decode_jpeg: for JPEGs of the usual kinds.

    Raises:
        RequestError: 415 no known format, 413 more than `max_pixels` in all frames by the header,
            400 damaged, 422 a pixel type that is no picture.
    """
    try:
        image = Image.open(guarded_file(body), formats=FORMATS)
        _require_few_pixels(image, max_pixels)
        orientation = _orientation(image)
        fast = is_for_torchvision(image)
        pixels = decode_jpeg(body) if fast else decode_with_pillow(image)
    except RequestError:
        raise
    except UnidentifiedImageError as error:
        raise _damaged() if _is_known(body) else _unknown() from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("larger", max_pixels) from error
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise _damaged() from error
    return np.ascontiguousarray(UPRIGHT.get(orientation, np.asarray)(pixels))


def is_for_torchvision(image: Image.Image) -> bool:
    """Whether torchvision reads this opened image as Pillow does, and safely."""
    return image.format in ("JPEG", "MPO") and image.mode in TORCHVISION_MODES


def decode_with_pillow(image: Image.Image) -> Picture:
    """UInt8[H, W, 3] RGB, as it lies in the file.

    Raises:
        RequestError: 422 a pixel type that is no picture.
        Exception: the file is damaged.
    """
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
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> object:
    # Pillow turns TIFFs itself, and only them.
    return None if image.format == "TIFF" else image.getexif().get(ExifTag.Orientation)


def _require_few_pixels(image: Image.Image, max_pixels: int) -> None:
    frames = _count_frames(image)
    if image.width * image.height * frames > max_pixels:
        several = f" in {frames} frames" if frames > 1 else ""
        raise _too_many_pixels(f"{image.width}x{image.height}{several}", max_pixels)


def _count_frames(image: Image.Image) -> int:
    """Not of a JPEG: phones put other pictures behind the first, which are never decoded."""
    if image.format not in ANIMATED:
        return 1
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    # Pillow's own count of a TIFF's takes the square of their number.
    frames = next((count for count in range(1, MOST_FRAMES) if not _has_frame(image, count)), None)
    if frames is None:
        raise too_large(f"the image has {MOST_FRAMES} frames or more", "send the first alone")
    image.seek(0)
    return frames


def _has_frame(image: Image.Image, index: int) -> bool:
    try:
        image.seek(index)
    except EOFError:
        return False
    return True


def _is_known(body: bytes) -> bool:
    return body.startswith(SIGNATURES) or (body.startswith(RIFF) and WEBP.startswith(body[8:12]))


def _unknown() -> RequestError:
    return unsupported_media_type(
        "the body is not an image of a known format",
        f"send one of {', '.join(FORMATS)}, or an array written by numpy.save",
    )


def _too_many_pixels(size: str, max_pixels: int) -> RequestError:
    return too_large(
        f"the image is {size}; at most {max_pixels} pixels are accepted",
        "send a smaller picture, or raise max_image_pixels in the archive's model-config.yaml",
    )


def _damaged() -> RequestError:
    return bad_request("the image is truncated or damaged", "send the file whole and unchanged")
