"""Request bodies for tests."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def image_bytes(content: Image.Image | npt.NDArray[Any], file_format: str, **options: Any) -> bytes:
    """Encode an image; arrays are UInt8[H, W, 3] RGB or UInt8[H, W]."""
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array as numpy.save writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def noise(height: int, width: int, *channels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """UInt8[height, width, *channels] of random values."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, *channels), dtype=np.uint8)
