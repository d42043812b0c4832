"""Encoded pictures to UInt8[H, W, 3] RGB, beside the libraries that do nothing but decode."""

import io
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as decode_by_torchvision

from bench.contest import OURS, Contest, Contestant
from bench.scale import Scale, picture_of, size_text
from handler.inputs.decode import decode_items
from handler.messages import Part
from handler.options import Options
from handler.pictures import Picture
from handler.settings import Settings

STAGE = "decode"
JPEG_QUALITY = 90
NPY = "application/x-npy"
NOTE = "ours checks sizes, hostile headers and EXIF as well"


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each format and size."""
    for size_wh in scale.sizes_wh:
        picture = picture_of(size_wh)
        for file_format in ("JPEG", "PNG"):
            body = encoded(picture, file_format)
            yield _contest(file_format, size_wh, f"image/{file_format.lower()}", body)
        yield _contest("NPY", size_wh, NPY, npy(picture))


def encoded(picture: Picture, file_format: str) -> bytes:
    """As a camera or a program writes it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, file_format, quality=JPEG_QUALITY)
    return file.getvalue()


def npy(picture: Picture) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, picture)
    return file.getvalue()


def _contest(file_format: str, size_wh: tuple[int, int], media_type: str, body: bytes) -> Contest:
    part = Part(media_type, body)
    callables: dict[str, Callable[[], object]] = {
        OURS: lambda: decode_items([part], Options(0.0, 100), Settings()),
        **({"numpy": lambda: _numpy(body)} if media_type == NPY else _image_decoders(body)),
    }
    contestants = {name: Contestant(call) for name, call in callables.items()}
    return Contest(STAGE, f"{file_format} {size_text(size_wh)}", contestants, note=NOTE)


def _image_decoders(body: bytes) -> dict[str, Callable[[], object]]:
    return {
        "Pillow": lambda: np.asarray(Image.open(io.BytesIO(body)).convert("RGB")),
        "torchvision": lambda: _torchvision(body),
        "OpenCV": lambda: _opencv(body),
    }


def _numpy(body: bytes) -> object:
    return np.load(io.BytesIO(body), allow_pickle=False)


def _torchvision(body: bytes) -> object:
    data = torch.frombuffer(bytearray(body), dtype=torch.uint8)
    return decode_by_torchvision(data, ImageReadMode.RGB)


def _opencv(body: bytes) -> object:
    bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
