"""Seeded generator of images of overlapping, textured shapes with exact masks.

Every image is a pure function of its seed (and of the optional size and shape count), so a data
set is a range of integers. The module requires numpy and OpenCV only.

Conventions used throughout:

* images are `uint8` arrays of shape `(height, width, 3)` in RGB order, values 0..255;
* masks are `bool` arrays of shape `(height, width)`, true on the *visible* pixels;
* points and boxes are `(x, y)` ordered, in pixels, with the origin at the top left corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.shapes.training.camera import photograph
from models.shapes.training.outlines import (
    CLASS_NAMES,
    BoolArray,
    ByteArray,
    FloatArray,
    apply_pose,
    contours_area,
    mask_box,
    rasterize,
    unit_contours,
)
from models.shapes.training.painting import background, paint_shape

MIN_SIDE = 240
MAX_SIDE = 640
MIN_DIAMETER = 24.0
MIN_VISIBLE = 0.55
_PLACEMENT_TRIES = 30


@dataclass(frozen=True)
class Instance:
    """One visible shape.

    Attributes:
        class_index: Index into `CLASS_NAMES`, 0 .. `len(CLASS_NAMES) - 1`.
        mask: `bool` array `(height, width)` of the image, true on visible pixels.
        box: `(x0, y0, x1, y1)` in pixels around the visible pixels; `x1` and `y1` are
            exclusive, so that `x1 - x0` is the width and `0 <= x0 < x1 <= width`.
    """

    class_index: int
    mask: BoolArray
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """An image and its visible shapes.

    Attributes:
        image: `uint8` array `(height, width, 3)`, RGB, 0..255.
        instances: The shapes from back to front; their masks do not overlap.
    """

    image: ByteArray
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class _Placed:
    """A shape that was drawn: its class, its full area in pixels and its visible pixels."""

    class_index: int
    area: float
    visible: BoolArray
    centre: tuple[float, float]
    radius: float


def generate_scene(
    seed: int, size: tuple[int, int] | None = None, shape_count: int | None = None
) -> Scene:
    """Generate the image that belongs to a seed.

    Args:
        seed: Non-negative integer; equal arguments give equal scenes.
        size: `(width, height)` in pixels, or `None` to draw sides between `MIN_SIDE` and
            `MAX_SIDE` with an aspect ratio of at most two to one.
        shape_count: How many shapes to try to place, or `None` to draw 3 to 12.

    Returns:
        The scene; each of its shapes has at least `MIN_VISIBLE` of its area visible.
    """
    rng = np.random.default_rng(seed)
    drawn_size = _draw_size(rng)
    width, height = size if size is not None else drawn_size
    drawn_count = int(rng.integers(3, 13))
    canvas = background(rng, height, width)
    placed: list[_Placed] = []
    for _ in range(shape_count if shape_count is not None else drawn_count):
        placed = _place_shape(rng, canvas, placed)
    instances = tuple(_instance(shape) for shape in placed)
    return Scene(image=photograph(rng, canvas), instances=instances)


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    long_side = int(rng.integers(320, MAX_SIDE + 1))
    short_side = max(MIN_SIDE, round(long_side / rng.uniform(1.0, 2.0)))
    return (long_side, short_side) if rng.random() < 0.6 else (short_side, long_side)


def _instance(shape: _Placed) -> Instance:
    return Instance(shape.class_index, shape.visible, mask_box(shape.visible))


def _place_shape(
    rng: np.random.Generator, canvas: FloatArray, placed: list[_Placed]
) -> list[_Placed]:
    """Draw one shape on the canvas where it fits; return the shapes now in the image."""
    height, width = canvas.shape[:2]
    class_index = int(rng.integers(len(CLASS_NAMES)))
    for _ in range(_PLACEMENT_TRIES):
        radius = _draw_radius(rng, min(height, width))
        centre = _draw_centre(rng, width, height, radius, placed)
        contours = apply_pose(rng, unit_contours(rng, class_index), centre, radius)
        alpha = rasterize(contours, height, width)
        shape = _Placed(class_index, contours_area(contours), alpha >= 128, centre, radius)
        remaining = _occlude(placed, shape.visible)
        if _fits([*remaining, shape]):
            paint_shape(rng, canvas, alpha)
            return [*remaining, shape]
    return placed


def _draw_radius(rng: np.random.Generator, short_side: int) -> float:
    smallest = max(MIN_DIAMETER, 0.11 * short_side)
    largest = 0.46 * short_side
    return 0.5 * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))


def _draw_centre(
    rng: np.random.Generator, width: int, height: int, radius: float, placed: Sequence[_Placed]
) -> tuple[float, float]:
    """Draw a centre anywhere in the image, or close to another shape to make them overlap."""
    if placed and rng.random() < 0.4:
        other = placed[int(rng.integers(len(placed)))]
        distance = (other.radius + radius) * rng.uniform(0.5, 0.95)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        x = other.centre[0] + distance * np.cos(angle)
        y = other.centre[1] + distance * np.sin(angle)
    else:
        x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
    margin = 0.6 * radius
    return float(np.clip(x, margin, width - margin)), float(np.clip(y, margin, height - margin))


def _occlude(placed: Sequence[_Placed], cover: BoolArray) -> list[_Placed]:
    return [
        _Placed(shape.class_index, shape.area, shape.visible & ~cover, shape.centre, shape.radius)
        for shape in placed
    ]


def _fits(shapes: Sequence[_Placed]) -> bool:
    return all(np.count_nonzero(shape.visible) >= MIN_VISIBLE * shape.area for shape in shapes)
