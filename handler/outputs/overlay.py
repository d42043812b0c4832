"""Detections drawn on their picture."""

import colorsys
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from handler.detections import Detections
from handler.errors import not_acceptable
from handler.masks.paste import paste_mask
from handler.outputs.accept import JPEG, PNG
from handler.outputs.labels import label_texts
from handler.pictures import Picture

MASK_OPACITY = 0.45
JPEG_QUALITY = 90
LONGEST_JPEG_SIDE = 65_500
GOLDEN_RATIO = 0.618033988749895
ENCODERS = {JPEG: "JPEG", PNG: "PNG"}

Colour = tuple[int, int, int]


def overlay_body(
    picture: Picture, detections: Detections, names: Sequence[str], media_type: str
) -> bytes:
    """The picture with masks, outlines, boxes and labels, as an encoded image.

    Args:
        picture: UInt8[H, W, 3] RGB, of the detections' size; left unchanged.
        media_type: image/jpeg or image/png.

    Raises:
        RequestError: 406 where the picture is too long for a JPEG.
    """
    if media_type == JPEG and max(detections.size_hw) > LONGEST_JPEG_SIDE:
        raise not_acceptable(
            f"a JPEG side has at most {LONGEST_JPEG_SIDE} pixels", "accept image/png"
        )
    image = Image.fromarray(draw_detections(picture, detections, names))
    encoded = io.BytesIO()
    image.save(encoded, ENCODERS[media_type], quality=JPEG_QUALITY)
    return encoded.getvalue()


def draw_detections(picture: Picture, detections: Detections, names: Sequence[str]) -> Picture:
    """UInt8[H, W, 3] RGB: a copy with everything drawn, the surest detections on top."""
    canvas = picture.copy()
    order = range(len(detections) - 1, -1, -1)
    if detections.masks is not None:
        for index in order:
            _draw_mask(canvas, detections, index)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    texts = label_texts(detections, names)
    font = ImageFont.load_default(_font_size(detections.size_hw))
    for index in order:
        _draw_box(draw, detections, index, texts[index], font)
    return np.asarray(image)


def instance_colour(index: int) -> Colour:
    """RGB in 0..255; successive instances differ clearly (hues a golden section apart)."""
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, 0.9, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_mask(canvas: Picture, detections: Detections, index: int) -> None:
    assert detections.masks is not None
    region = paste_mask(detections.masks[index], detections.boxes_xyxy[index], detections.size_hw)
    height, width = region.pixels.shape
    window = canvas[region.y : region.y + height, region.x : region.x + width]
    colour = np.array(instance_colour(index), dtype=np.float32)
    blended = window[region.pixels] * (1 - MASK_OPACITY) + colour * MASK_OPACITY
    window[region.pixels] = blended.astype(np.uint8)
    outlines, _ = cv2.findContours(
        region.pixels.astype(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_NONE,
        offset=(region.x, region.y),
    )
    cv2.drawContours(canvas, outlines, -1, instance_colour(index), _line_width(detections.size_hw))


def _draw_box(
    draw: ImageDraw.ImageDraw,
    detections: Detections,
    index: int,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    colour = instance_colour(index)
    x1, y1, x2, y2 = (float(value) for value in detections.boxes_xyxy[index])
    # The last pixel is within the box, and no box is thinner than a line.
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=1)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(x1, 0), max(detections.size_hw[1] - width, 0))
    y = y1 - height if y1 >= height else y1
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3 - left, y + 3 - top), text, fill=_readable_on(colour), font=font)


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if luminance > 128 else (255, 255, 255)


def _font_size(size_hw: tuple[int, int]) -> int:
    return max(11, round(min(size_hw) / 40))


def _line_width(size_hw: tuple[int, int]) -> int:
    return max(1, round(min(size_hw) / 300))
