"""Drawing primitives: boxes, masks, keypoints, names and colours."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

from d2serve.detections import Detections, Picture
from d2serve.masks.paste import MaskRegion

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def line_width(size_hw: Sequence[int]) -> int:
    """In pixels."""
    return max(1, round(min(size_hw) / 300))


def label_font(size_hw: tuple[int, int]) -> Font:
    """Pillow's own font."""
    return ImageFont.load_default(max(11, round(min(size_hw) / 40)))


Colour = tuple[int, int, int]
GOLDEN_RATIO = 0.618033988749895


def instance_colour(index: int) -> Colour:
    """RGB in 0..255; successive instances differ clearly (hues a golden section apart)."""
    return _golden_colour(index, saturation=0.9, value=1.0)


def stuff_colour(class_index: int) -> Colour:
    """RGB in 0..255, duller than instances; the same for a class in all pictures."""
    return _golden_colour(class_index, saturation=0.55, value=0.85)


def readable_on(colour: Colour) -> Colour:
    """Black or white."""
    red, green, blue = colour
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if luminance > 128 else (255, 255, 255)


def _golden_colour(index: int, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_box(
    draw: ImageDraw.ImageDraw, detections: Detections, index: int, text: str, font: Font
) -> None:
    """The box in the instance's colour, and on it a plate with the text, all of it inside."""
    colour = instance_colour(index)
    x1, y1, x2, y2 = (float(value) for value in detections.boxes_xyxy[index])
    # The last pixel is within the box, and no box is thinner than a line.
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=1)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(x1, 0), max(detections.size_hw[1] - width, 0))
    y = y1 - height if y1 >= height else y1
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3 - left, y + 3 - top), text, fill=readable_on(colour), font=font)


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


@dataclass(frozen=True)
class Spot:
    """The largest circle within a mask: its middle in the picture's pixels, and its radius."""

    x: int
    y: int
    radius: float


def widest_spot(region: MaskRegion) -> Spot:
    """Where there is most room for a name."""
    framed = np.pad(region.pixels.astype(np.uint8), 1)
    distances = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_3)
    _, radius, _, (x, y) = cv2.minMaxLoc(distances)
    return Spot(region.x + x - 1, region.y + y - 1, radius)


def draw_name(draw: ImageDraw.ImageDraw, spot: Spot, name: str, font: Font) -> None:
    """The name around the spot's middle and inside the picture; none where the spot is too low."""
    canvas_width, canvas_height = draw.im.size
    stroke = max(1, line_width((canvas_height, canvas_width)) // 2)
    left, top, right, bottom = draw.textbbox((0, 0), name, font=font, stroke_width=stroke)
    width, height = right - left, bottom - top
    if spot.radius < height:
        return
    x = min(max(spot.x - width / 2, 0), max(canvas_width - width, 0)) - left
    y = min(max(spot.y - height / 2, 0), max(canvas_height - height, 0)) - top
    draw.text((x, y), name, "white", font=font, stroke_width=stroke, stroke_fill="black")


OPACITY = 0.45


def draw_region(canvas: Picture, region: MaskRegion, colour: Colour) -> None:
    """Tints the region's pixels and draws its outlines, those of its holes too."""
    window, pixels = canvas[region.window], region.pixels.astype(np.uint8)
    cv2.copyTo(cv2.LUT(window, _tints(colour)), pixels, window)
    outlines, _ = cv2.findContours(
        pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(region.x, region.y)
    )
    cv2.drawContours(canvas, outlines, -1, colour, line_width(canvas.shape[:2]))


def _tints(colour: Colour) -> npt.NDArray[np.uint8]:
    """UInt8[256, 1, 3]: what becomes of each value of red, green and blue under the colour."""
    values = np.arange(256)[:, None, None]
    blended: npt.NDArray[np.float64] = values * (1 - OPACITY) + np.array(colour) * OPACITY
    return blended.astype(np.uint8)
