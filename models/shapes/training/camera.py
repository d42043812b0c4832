"""Camera effects: light, blur, sensor noise and compression."""

import cv2
import numpy as np

from models.shapes.training.outlines import ByteArray, FloatArray
from models.shapes.training.textures import pixel_grid


def photograph(rng: np.random.Generator, canvas: FloatArray) -> ByteArray:
    """Apply light, blur, sensor noise and compression; return `uint8` RGB."""
    lit = _light(rng, canvas)
    if rng.random() < 0.5:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.3, 1.1))), np.float32)
    noise = np.float32(rng.uniform(0.0, 5.0) if rng.random() < 0.6 else 0.0)
    noisy = lit + noise * rng.standard_normal(lit.shape, np.float32)
    image = np.rint(np.clip(noisy, 0.0, 255.0)).astype(np.uint8)
    return _compressed(image, int(rng.integers(35, 96))) if rng.random() < 0.5 else image


def _light(rng: np.random.Generator, canvas: FloatArray) -> FloatArray:
    """Apply gamma, a colour cast and a vignette; `float32` in, `float32` out, 0..255."""
    height, width = canvas.shape[:2]
    gamma = np.float32(np.exp(rng.uniform(-0.3, 0.3)))
    cast = rng.uniform(0.88, 1.08, size=3).astype(np.float32)
    x, y = pixel_grid(height, width)
    centre_x, centre_y = rng.uniform(0.25, 0.75, size=2) * (width, height)
    distance = ((x - centre_x) / width) ** 2 + ((y - centre_y) / height) ** 2
    falloff = 1.0 - np.float32(rng.uniform(0.0, 0.5)) * distance
    lit = 255.0 * np.power(canvas.clip(0.0, 255.0) / 255.0, gamma) * cast * falloff[..., None]
    return np.asarray(lit, np.float32)


def _compressed(image: ByteArray, quality: int) -> ByteArray:
    """Compress an image to JPEG and decode it; `uint8` RGB in and out."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG")
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
