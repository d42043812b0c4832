"""Masks on a picture."""

import cv2
import numpy as np
import numpy.typing as npt

from handler.masks.paste import MaskRegion
from handler.outputs.drawing.colours import Colour
from handler.outputs.drawing.sizes import line_width
from handler.pictures import Picture

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
