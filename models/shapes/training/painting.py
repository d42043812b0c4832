"""Painting of backgrounds and shapes on a canvas, Float32[H, W, 3] RGB in 0..255."""

import cv2
import numpy as np

from models.shapes.training.outlines import ByteArray, FloatArray, mask_box
from models.shapes.training.textures import (
    checks,
    clouds,
    dots,
    flat,
    gradient,
    random_colour,
    shade,
    stripes,
    texture,
)

_MIN_CONTRAST = 110.0


def paint_shape(rng: np.random.Generator, canvas: FloatArray, alpha: ByteArray) -> None:
    """Paint a shape on the canvas by its coverage, with a random shadow and border."""
    rows, columns = _window(alpha, margin=16)
    patch, cover = canvas[rows, columns], alpha[rows, columns]
    base = _contrasting_colour(rng, patch[cover >= 128].mean(axis=0))
    weight = cover.astype(np.float32)[..., None] / 255.0
    if rng.random() < 0.6:
        patch *= _shadow(rng, cover)
    fill = texture(rng, cover.shape[0], cover.shape[1], base)
    if rng.random() < 0.35:
        _draw_border(rng, fill, cover, base)
    patch += weight * (fill - patch)


def _window(alpha: ByteArray, margin: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(value) for value in mask_box(alpha > 0))
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)


def _contrasting_colour(rng: np.random.Generator, behind: FloatArray) -> FloatArray:
    colour = random_colour(rng)
    for _ in range(20):
        if float(np.linalg.norm(colour - behind)) >= _MIN_CONTRAST:
            break
        colour = random_colour(rng)
    return colour


def _shadow(rng: np.random.Generator, cover: ByteArray) -> FloatArray:
    """Return factors `(height, width, 1)` in 0..1 that darken the pixels around a shape."""
    offset = rng.integers(-7, 8, size=2)
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
    moved = cv2.warpAffine(cover, shift, (cover.shape[1], cover.shape[0]))
    soft = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(2.0, 5.0)))
    strength = rng.uniform(0.2, 0.55) / 255.0
    return np.asarray(1.0 - strength * soft.astype(np.float32), np.float32)[..., None]


def _draw_border(
    rng: np.random.Generator, fill: FloatArray, cover: ByteArray, base: FloatArray
) -> None:
    """Draw a lighter or darker border into a fill, along the inside of the shape."""
    thickness = int(rng.integers(1, 4))
    inside = cv2.erode(cover, np.ones((3, 3), np.uint8), iterations=thickness)
    fill[inside < 128] = shade(rng, base, 0.45)


def background(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return the canvas, `float32` of shape `(height, width, 3)`, 0..255."""
    first, second, third = (_muted_colour(rng) for _ in range(3))
    canvas = first + gradient(rng, height, width)[..., None] * (second - first)
    blends = (flat, clouds, stripes, checks, dots)
    blend = blends[int(rng.choice(len(blends), p=(0.25, 0.45, 0.1, 0.1, 0.1)))]
    strength = np.float32(rng.uniform(0.1, 0.5 if blend is clouds else 0.22))
    canvas += strength * blend(rng, height, width)[..., None] * (third - canvas)
    canvas += np.float32(rng.uniform(0.0, 8.0)) * _grain(rng, height, width)
    _draw_distractors(rng, canvas)
    return np.asarray(np.clip(canvas, 0.0, 255.0), np.float32)


def _muted_colour(rng: np.random.Generator) -> FloatArray:
    grey = np.float32(rng.uniform(40.0, 215.0))
    return np.asarray(grey + 0.45 * (random_colour(rng) - grey), np.float32)


def _grain(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    return rng.standard_normal((height, width, 1), np.float32)


def _draw_distractors(rng: np.random.Generator, canvas: FloatArray) -> None:
    """Draw thin lines and open arcs, which belong to no class."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 7))):
        colour = [float(value) for value in random_colour(rng)]
        thickness = int(rng.integers(1, 4))
        x0, y0, x1, y1 = (int(v) for v in rng.uniform(0, 1, 4) * (width, height, width, height))
        if rng.random() < 0.6:
            cv2.line(canvas, (x0, y0), (x1, y1), colour, thickness, cv2.LINE_AA)
        else:
            axes = (int(rng.integers(20, 160)), int(rng.integers(20, 160)))
            start, extent = rng.uniform(0, 360), rng.uniform(40, 160)
            cv2.ellipse(
                canvas, (x0, y0), axes, 0.0, start, start + extent, colour, thickness, cv2.LINE_AA
            )
