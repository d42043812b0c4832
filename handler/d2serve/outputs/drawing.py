"""Drawing primitives: boxes, masks, keypoints, names and colors."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

from d2serve.detections import Detections, RGBImage
from d2serve.masks.paste import MaskRegion

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
# RGB in 0..255.
Color: TypeAlias = tuple[int, int, int]
# x, y in sixteenths of a pixel.
Point: TypeAlias = tuple[int, int]
GOLDEN_RATIO = 0.618033988749895
MASK_OPACITY = 0.45
# Detectron2's visualizer draws keypoints with a higher score.
KEYPOINT_THRESHOLD = 0.05
# COCO's category `person`: 17 keypoints and the pairs that are connected, counted from 0 here.
COCO_KEYPOINTS = 17
COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
OUTLINE: Color = (0, 0, 0)
DOT: Color = (255, 255, 255)
# Around the text of a label, in pixels.
LABEL_MARGIN = 3
# In pixels; OpenCV counts in 32-bit integers.
MAX_COORDINATE = 1e6
# OpenCV takes fractions of a pixel as integers in sixteenths.
FRACTION_BITS = 4


@dataclass(frozen=True)
class Label:
    """A text and the space that it takes, in pixels.

    Attributes:
        text: one line.
        font: draws it.
        left, top: from the text's origin to its first column and row.
        width, height: of the rectangle around it.
    """

    text: str
    font: Font
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Circle:
    """A circle in the image's pixels: its center and its radius."""

    x: int
    y: int
    radius: float


def line_width(size_hw: Sequence[int]) -> int:
    """Line width for an image of this size, in pixels."""
    return max(1, round(min(size_hw) / 300))


def label_size(size_hw: tuple[int, int]) -> int:
    """The size of labels for an image of this size, in pixels."""
    return max(11, round(min(size_hw) / 40))


def measured_label(draw: ImageDraw.ImageDraw, text: str, font: Font) -> Label:
    """A label with the space that it takes."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margins = 2 * LABEL_MARGIN
    return Label(text, font, left, top, right - left + margins, bottom - top + margins)


def instance_color(index: int) -> Color:
    """A color that differs clearly from the next instance's (hues a golden section apart)."""
    return _golden_color(index, saturation=0.9, value=1.0)


def stuff_color(class_index: int) -> Color:
    """A color duller than those of instances; the same for a class in all images."""
    return _golden_color(class_index, saturation=0.55, value=0.85)


def readable_on(color: Color) -> Color:
    """Return the one of black and white that contrasts more with the color."""
    red, green, blue = color
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if luminance > 128 else (255, 255, 255)


def draw_box(draw: ImageDraw.ImageDraw, detections: Detections, index: int) -> None:
    """Draw an instance's box in its color."""
    x1, y1, x2, y2 = (float(value) for value in detections.boxes_xyxy[index])
    # Pillow includes the last pixel; a box is at least as thick as a line.
    corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
    draw.rectangle(corners, outline=instance_color(index), width=1)


def draw_label(
    draw: ImageDraw.ImageDraw, label: Label, corner_xy: Sequence[float], color: Color
) -> None:
    """Draw a label on a rectangle of the color with this top left corner."""
    x, y = corner_xy
    draw.rectangle((x, y, x + label.width, y + label.height), fill=color)
    origin = (x + LABEL_MARGIN - label.left, y + LABEL_MARGIN - label.top)
    draw.text(origin, label.text, fill=readable_on(color), font=label.font)


def draw_keypoints(canvas: RGBImage, keypoints: npt.NDArray[np.float32], color: Color) -> None:
    """Draw confident keypoints as dots, and COCO's 17 of a person with lines between them.

    Args:
        canvas: UInt8[H, W, 3] RGB, drawn on.
        keypoints: Float32[K, 3] x, y in pixels and score in 0..1, of one instance.
        color: of the lines.
    """
    width = line_width(canvas.shape[:2])
    points = {
        index: _to_sixteenths(x, y)
        for index, (x, y, score) in enumerate(keypoints.tolist())
        if score > KEYPOINT_THRESHOLD and max(abs(x), abs(y)) <= MAX_COORDINATE
    }
    skeleton = COCO_SKELETON if len(keypoints) == COCO_KEYPOINTS else ()
    lines = [(points[a], points[b]) for a, b in skeleton if a in points and b in points]
    for line_color, thickness in ((OUTLINE, 3 * width), (color, 2 * width)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_color, thickness, cv2.LINE_AA, FRACTION_BITS)
    for point in points.values():
        _draw_dot(canvas, point, 3 * width, OUTLINE)
        _draw_dot(canvas, point, 2 * width, DOT)


def draw_region(canvas: RGBImage, region: MaskRegion, color: Color) -> None:
    """Tint the region's pixels and draw its outlines, including those of its holes."""
    window, pixels = canvas[region.window], region.pixels.astype(np.uint8)
    cv2.copyTo(cv2.LUT(window, _tint_table(color)), pixels, window)
    outlines, _ = cv2.findContours(
        pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(region.x, region.y)
    )
    cv2.drawContours(canvas, outlines, -1, color, line_width(canvas.shape[:2]))


def largest_circle(region: MaskRegion) -> Circle:
    """The largest circle inside a mask, where there is most room for a name."""
    framed = np.pad(region.pixels.astype(np.uint8), 1)
    distances = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_3)
    _, radius, _, (x, y) = cv2.minMaxLoc(distances)
    return Circle(region.x + x - 1, region.y + y - 1, radius)


def draw_name(draw: ImageDraw.ImageDraw, circle: Circle, name: str, font: Font) -> None:
    """Draw a name centered on the circle, inside the image, unless the circle is too small."""
    canvas_width, canvas_height = draw.im.size
    stroke = max(1, line_width((canvas_height, canvas_width)) // 2)
    left, top, right, bottom = draw.textbbox((0, 0), name, font=font, stroke_width=stroke)
    width, height = right - left, bottom - top
    if circle.radius < height:
        return
    x = min(max(circle.x - width / 2, 0), max(canvas_width - width, 0)) - left
    y = min(max(circle.y - height / 2, 0), max(canvas_height - height, 0)) - top
    draw.text((x, y), name, "white", font=font, stroke_width=stroke, stroke_fill="black")


def _golden_color(index: int, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_dot(canvas: RGBImage, center: Point, radius: int, color: Color) -> None:
    sixteenths = radius << FRACTION_BITS
    cv2.circle(canvas, center, sixteenths, color, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)


def _to_sixteenths(x: float, y: float) -> Point:
    """Image coordinates to OpenCV's, where (0, 0) is the center of the first pixel."""
    scale = 1 << FRACTION_BITS
    return round((x - 0.5) * scale), round((y - 0.5) * scale)


def _tint_table(color: Color) -> npt.NDArray[np.uint8]:
    """UInt8[256, 1, 3]: the tinted value of each value of red, green and blue."""
    values = np.arange(256)[:, None, None]
    blended: npt.NDArray[np.float64] = values * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY
    return blended.astype(np.uint8)
