"""Colours, and patterns in 0..1 that blend them into fills."""

import cv2
import numpy as np

from models.shapes.training.outlines import FloatArray


def random_colour(rng: np.random.Generator) -> FloatArray:
    """Return one RGB colour, `float32` of shape `(3,)`, 0..255."""
    hsv = np.array([rng.uniform(0, 360), rng.uniform(0.15, 0.95), rng.uniform(0.3, 1.0)])
    rgb = cv2.cvtColor(hsv.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_HSV2RGB)
    return np.asarray(rgb, np.float32).reshape(3) * np.float32(255.0)


def shade(rng: np.random.Generator, colour: FloatArray, amount: float) -> FloatArray:
    """Return a clearly lighter or darker version of a colour."""
    target = 255.0 if rng.random() < 0.5 else 0.0
    strength = rng.uniform(0.5, 1.0) * amount
    return np.asarray(colour + strength * (target - colour), np.float32)


def texture(rng: np.random.Generator, height: int, width: int, base: FloatArray) -> FloatArray:
    """Return a fill, `float32` of shape `(height, width, 3)`, about a base colour."""
    accent = shade(rng, base, 0.4)
    blends = (flat, gradient, stripes, dots, checks, clouds)
    blend = blends[int(rng.integers(len(blends)))](rng, height, width)
    if rng.random() < 0.3:
        blend = np.clip(blend + 0.15 * rng.standard_normal(blend.shape, np.float32), 0, 1)
    return np.asarray(base + blend[..., None] * (accent - base), np.float32)


def pixel_grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Return x and y of every pixel, Float32[H, W] each."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x, y


def _rotated_grid(
    rng: np.random.Generator, height: int, width: int
) -> tuple[FloatArray, FloatArray]:
    x, y = pixel_grid(height, width)
    angle = np.float32(rng.uniform(0.0, np.pi))
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


def flat(_: np.random.Generator, height: int, width: int) -> FloatArray:
    """No pattern: Float32[H, W] zeros."""
    return np.zeros((height, width), np.float32)


def gradient(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A ramp from 0 to 1 in any direction, Float32[H, W]."""
    along, _ = _rotated_grid(rng, height, width)
    return np.asarray((along - along.min()) / max(float(np.ptp(along)), 1.0), np.float32)


def stripes(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Stripes in any direction, Float32[H, W] in 0..1."""
    along, _ = _rotated_grid(rng, height, width)
    wave = np.sin(along * np.float32(2.0 * np.pi / rng.uniform(6.0, 22.0)))
    return np.asarray(np.clip(wave * 2.5 + 0.5, 0.0, 1.0), np.float32)


def dots(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A grid of dots, Float32[H, W] in 0..1."""
    along, across = _rotated_grid(rng, height, width)
    step = np.float32(np.pi / rng.uniform(6.0, 16.0))
    wave = np.abs(np.sin(along * step) * np.sin(across * step))
    return np.asarray(np.clip((wave - 0.45) * 5.0, 0.0, 1.0), np.float32)


def checks(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A chessboard, Float32[H, W] of 0 and 1."""
    along, across = _rotated_grid(rng, height, width)
    step = np.float32(np.pi / rng.uniform(7.0, 18.0))
    return np.asarray(np.sin(along * step) * np.sin(across * step) > 0, np.float32)


def clouds(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return smooth noise, `float32` of shape `(height, width)`, 0..1."""
    cells = int(rng.integers(3, 12))
    coarse = rng.random((cells, cells), np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth, 0.0, 1.0), np.float32)
