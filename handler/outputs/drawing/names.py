"""Names in the midst of masks."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageDraw

from handler.masks.paste import MaskRegion
from handler.outputs.drawing.sizes import Font, line_width


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
