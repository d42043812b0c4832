"""How large lines and letters are on a picture of some size."""

from collections.abc import Sequence

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def line_width(size_hw: Sequence[int]) -> int:
    """In pixels."""
    return max(1, round(min(size_hw) / 300))


def label_font(size_hw: tuple[int, int]) -> Font:
    """Pillow's own font."""
    return ImageFont.load_default(max(11, round(min(size_hw) / 40)))
