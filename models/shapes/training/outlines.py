"""Outlines of the shapes: contours about the origin, their poses, and masks."""

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

CLASS_NAMES: tuple[str, ...] = ("circle", "triangle", "square", "star", "cross", "ring")
FloatArray: TypeAlias = NDArray[np.float32]
ByteArray: TypeAlias = NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]
Contours: TypeAlias = list[NDArray[np.float64]]
_SUBPIXEL_BITS = 4


def _regular_polygon(count: int, radius: float = 1.0, phase: float = 0.0) -> NDArray[np.float64]:
    angles = phase + 2.0 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _circle(_: np.random.Generator) -> Contours:
    return [_regular_polygon(96)]


def _triangle(rng: np.random.Generator) -> Contours:
    return [_regular_polygon(3) + rng.uniform(-0.1, 0.1, size=(3, 2))]


def _square(_: np.random.Generator) -> Contours:
    return [_regular_polygon(4, phase=np.pi / 4)]


def _star(rng: np.random.Generator) -> Contours:
    points = _regular_polygon(10)
    points[1::2] *= rng.uniform(0.38, 0.5)
    return [points]


def _cross(rng: np.random.Generator) -> Contours:
    arm = rng.uniform(0.24, 0.36)
    corner = [(1.0, -arm), (1.0, arm), (arm, arm)]
    turned = [(x, y) for x, y in corner]
    points: list[tuple[float, float]] = []
    for _ in range(4):
        points.extend(turned)
        turned = [(-y, x) for x, y in turned]
    return [np.array(points)]


def _ring(rng: np.random.Generator) -> Contours:
    return [_regular_polygon(96), _regular_polygon(96, radius=rng.uniform(0.42, 0.68))]


_OUTLINES: dict[str, Callable[[np.random.Generator], Contours]] = {
    "circle": _circle,
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}


def unit_contours(rng: np.random.Generator, class_index: int) -> Contours:
    """Return closed contours about the origin with radius 1; an inner contour is a hole."""
    return _OUTLINES[CLASS_NAMES[class_index]](rng)


def apply_pose(
    rng: np.random.Generator, contours: Contours, centre: tuple[float, float], radius: float
) -> Contours:
    """Rotate, stretch, rotate again and move unit contours to pixel coordinates."""
    stretch = np.diag([1.0, rng.uniform(0.85, 1.0)])
    matrix = radius * _rotation(rng) @ stretch @ _rotation(rng)
    return [points @ matrix.T + np.array(centre) for points in contours]


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def contours_area(contours: Contours) -> float:
    """Area in square pixels inside the outer contour and outside the inner ones."""
    outer, *holes = (cv2.contourArea(points.astype(np.float32)) for points in contours)
    return float(outer - sum(holes))


def rasterize(contours: Contours, height: int, width: int) -> ByteArray:
    """Fill contours by the even-odd rule; `uint8` coverage, 0 outside and 255 inside."""
    alpha = np.zeros((height, width), np.uint8)
    scale = 1 << _SUBPIXEL_BITS
    fixed = [np.rint((points - 0.5) * scale).astype(np.int32) for points in contours]
    cv2.fillPoly(alpha, fixed, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return alpha


def mask_box(mask: BoolArray) -> tuple[float, float, float, float]:
    """Return the box around the true pixels of a mask.

    Args:
        mask: `bool` array `(height, width)` with at least one true pixel.

    Returns:
        `(x0, y0, x1, y1)` in pixels, `x1` and `y1` exclusive.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
