"""Boxes with their labels on a picture."""

from PIL import ImageDraw

from handler.detections import Detections
from handler.outputs.drawing.colours import instance_colour, readable_on
from handler.outputs.drawing.sizes import Font


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
