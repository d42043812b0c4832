"""Keypoints on a picture."""

import cv2
import numpy as np
import numpy.typing as npt

from handler.outputs.drawing.colours import Colour
from handler.outputs.drawing.sizes import line_width
from handler.pictures import Picture

# Detectron2's visualizer draws those above it.
THRESHOLD = 0.05
# COCO's category `person`: 17 keypoints, and which of them are joined, counted from 0 here.
COCO_KEYPOINTS = 17
COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
RIM: Colour = (0, 0, 0)
DOT: Colour = (255, 255, 255)
# OpenCV takes fractions of a pixel as whole numbers of sixteenths.
FRACTION_BITS = 4

Point = tuple[int, int]


def draw_keypoints(canvas: Picture, keypoints: npt.NDArray[np.float32], colour: Colour) -> None:
    """Sure points as dots; the 17 of COCO's people joined by lines in the instance's colour.

    Args:
        keypoints: Float32[K, 3] x, y in pixels and score in 0..1, of one instance.
    """
    width = line_width(canvas.shape[:2])
    points = {
        index: _to_sixteenths(x, y)
        for index, (x, y, score) in enumerate(keypoints.tolist())
        if score > THRESHOLD
    }
    limbs = COCO_SKELETON if len(keypoints) == COCO_KEYPOINTS else ()
    lines = [(points[a], points[b]) for a, b in limbs if a in points and b in points]
    for line_colour, thickness in ((RIM, 3 * width), (colour, 2 * width)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_colour, thickness, cv2.LINE_AA, FRACTION_BITS)
    for point in points.values():
        _draw_dot(canvas, point, 3 * width, RIM)
        _draw_dot(canvas, point, 2 * width, DOT)


def _draw_dot(canvas: Picture, centre: Point, radius: int, colour: Colour) -> None:
    sixteenths = radius << FRACTION_BITS
    cv2.circle(canvas, centre, sixteenths, colour, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)


def _to_sixteenths(x: float, y: float) -> Point:
    """To OpenCV (0, 0) is the middle of the first pixel, here its corner."""
    scale = 1 << FRACTION_BITS
    return round((x - 0.5) * scale), round((y - 0.5) * scale)
