"""Colours: the same ones for the same detections, always."""

import colorsys

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
