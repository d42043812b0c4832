"""Encoded images -> UInt8[H, W, 3] RGB."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from torch import Tensor

from d2serve.detections import RGBImage
from d2serve.errors import (
    RequestError,
    SettingsError,
    bad_request,
    too_large,
    unprocessable,
    unsupported_media_type,
)
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.image_guard import guarded_file, jpeg_has_end, jpeg_is_rgb
from d2serve.inputs.jpeg_operators import DECODE_JPEG, RGB, nvjpeg_operator
from d2serve.torchvision_ops import Function, Operator

# Bytes -> UInt8[H, W, 3] RGB, in the orientation of the file.
JpegDecoder: TypeAlias = Callable[[bytes], RGBImage]
logger = logging.getLogger(__name__)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*")
# The type of a RIFF file is in its ninth to twelfth byte.
RIFF, WEBP = b"RIFF", b"WEBP"
# torchvision decodes these modes like Pillow, in half the time. It decodes CMYK differently. PNGs
# stay with Pillow: libpng inflates all data after the last row, minutes of it in a hostile file.
TORCHVISION_MODES = ("L", "RGB")
ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
MAX_FRAMES = 1000
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


def decode_on_cpu(body: bytes) -> RGBImage:
    """Decode a JPEG to RGB, in the orientation of the file.

    Raises:
        RuntimeError: the file is damaged.
        ImportError: torchvision has no JPEG decoder.
    """
    apply_exif = False  # `decode_image` does it for all formats
    return _to_hwc(DECODE_JPEG(_to_tensor(body), RGB, apply_exif))


def decode_on_gpu(body: bytes, device: torch.device, nvjpeg: Function) -> RGBImage:
    """Decode a JPEG to RGB with nvJPEG, in the orientation of the file.

    Falls back to `decode_on_cpu` for files that nvJPEG cannot decode (arithmetic coding, a
    truncated file) or decodes differently (it takes R, G, B for Y, Cb, Cr).

    Args:
        body: the file.
        device: a GPU.
        nvjpeg: see `nvjpeg_operator`.

    Raises:
        RuntimeError: the file is damaged.
        ImportError: see `decode_on_cpu`.
    """
    if not jpeg_has_end(body) or jpeg_is_rgb(body):
        return decode_on_cpu(body)
    try:
        # On its own stream, or the copy would wait for the network.
        with torch.cuda.stream(torch.cuda.Stream(device)):
            [pixels] = nvjpeg([_to_tensor(body)], RGB, device)
            return _to_hwc(pixels)
    except RuntimeError as error:
        logger.info("nvJPEG failed, decoding on the CPU: %s", error)
        return decode_on_cpu(body)


def jpeg_decoder(
    decode: str,
    device: torch.device,
    operator: Callable[[torch.device], Operator] = nvjpeg_operator,
) -> JpegDecoder:
    """Load the decoder for the setting `decode`.

    Args:
        decode: `cpu` or `device`.
        device: the network's device.
        operator: returns the nvJPEG decoder of a device.

    Raises:
        SettingsError: the device is not a GPU, or torchvision has no nvJPEG decoder.
        ImportError: torchvision has no JPEG decoder.
    """
    DECODE_JPEG.load()
    if decode == "cpu":
        return decode_on_cpu
    if device.type != "cuda":
        raise SettingsError(
            f"handler setting decode is {decode!r}, which requires a GPU, but the network runs on "
            f"the {device.type.upper()}; use cpu"
        )
    try:
        nvjpeg = operator(device).load()
    except ImportError as error:
        raise SettingsError(
            f"handler setting decode is {decode!r}, but this torchvision has no nvJPEG; use cpu"
        ) from error
    return lambda body: decode_on_gpu(body, device, nvjpeg)


def decode_image(
    body: bytes,
    max_pixels: int,
    decode_jpeg: JpegDecoder = decode_on_cpu,
    budget: RequestBudget | None = None,
) -> RGBImage:
    """Decode the first frame of an image file, upright (EXIF orientation applied), as 8-bit RGB.

    The first bytes determine the format. Alpha is dropped, as in Detectron2's `read_image`.

    Args:
        body: the file.
        max_pixels: maximum of width x height x frames, by the header.
        decode_jpeg: for JPEGs with the modes in TORCHVISION_MODES.
        budget: the request's pixels; those of the first frame are taken before it is decoded.

    Raises:
        RequestError: 415 unknown format, 413 more than `max_pixels` in all frames by the header or
            than the budget, 400 damaged, 422 unsupported pixel type.
        ImportError: a decoder is missing in this environment.
    """
    try:
        image = Image.open(guarded_file(body), formats=FORMATS)
        _check_pixels(image, max_pixels)
        if budget is not None:
            budget.take_pixels(image.width * image.height)
        orientation = _orientation(image)
        fast = is_for_torchvision(image)
        pixels = decode_jpeg(body) if fast else decode_with_pillow(image)
    except (RequestError, ImportError):  # a missing decoder does not mean a damaged image
        raise
    except UnidentifiedImageError as error:
        raise _damaged() if _is_known(body) else _unknown() from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(
            "the image is larger than the decoder accepts", max_pixels
        ) from error
    except Exception as error:  # damaged bytes make decoders raise almost anything
        raise _damaged() from error
    return np.ascontiguousarray(TO_UPRIGHT.get(orientation, np.asarray)(pixels))


def is_for_torchvision(image: Image.Image) -> bool:
    """Return whether torchvision decodes this opened image like Pillow, and safely."""
    return image.format in ("JPEG", "MPO") and image.mode in TORCHVISION_MODES


def decode_with_pillow(image: Image.Image) -> RGBImage:
    """Decode an opened image to RGB, in the orientation of the file.

    Raises:
        RequestError: 422 unsupported pixel type.
        Exception: the file is damaged.
    """
    if image.mode in ("I", "F"):
        raise unprocessable(
            "the image has 32 bits per channel", "send 8 or 16 bits per channel, or an NPY array"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits at 255 instead of scaling.
        gray = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((gray + 128) // 257).astype(np.uint8))
    # Transparent palette entries are dropped like alpha; Pillow warns about some of them.
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


def _to_tensor(body: bytes) -> Tensor:
    # A copy, because torch requires writable memory.
    return torch.frombuffer(bytearray(body), dtype=torch.uint8)


def _to_hwc(pixels: Tensor) -> RGBImage:
    image: RGBImage = pixels.permute(1, 2, 0).cpu().numpy()
    return image


def _orientation(image: Image.Image) -> object:
    # Pillow applies the orientation of TIFFs itself, and only of TIFFs.
    return None if image.format == "TIFF" else image.getexif().get(ExifTag.Orientation)


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    frames = _count_frames(image)
    if image.width * image.height * frames > max_pixels:
        several = f" in {frames} frames" if frames > 1 else ""
        raise _too_many_pixels(f"the image is {image.width}x{image.height}{several}", max_pixels)


def _count_frames(image: Image.Image) -> int:
    """Count the frames, except of JPEGs: the images that phones append are never decoded."""
    if image.format not in ANIMATED:
        return 1
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    # Pillow's own count for TIFFs takes time quadratic in the number of frames.
    frames = next((count for count in range(1, MAX_FRAMES) if not _has_frame(image, count)), None)
    if frames is None:
        raise too_large(
            f"the image has at least {MAX_FRAMES} frames, the limit is {MAX_FRAMES - 1}",
            "send only the first frame",
        )
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
        "the body's first bytes match no supported image format",
        f"send one of {', '.join(FORMATS)}, or an array written by numpy.save",
    )


def _too_many_pixels(problem: str, max_pixels: int) -> RequestError:
    return too_large(
        f"{problem}, the limit is {max_pixels} pixels",
        "send a smaller image, or raise max_image_pixels in the archive's model-config.yaml",
    )


def _damaged() -> RequestError:
    return bad_request(
        "the image is truncated or damaged", "send the complete, unmodified image file"
    )
