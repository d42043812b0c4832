import numpy as np

from d2serve.masks.paste import MaskRegion
from d2serve.outputs.drawing import draw_region

BLUE = (0, 0, 200)


def test_a_region_is_tinted_and_outlined_around_its_holes_too() -> None:
    pixels = np.ones((30, 40), dtype=np.bool_)
    pixels[10:20, 15:25] = False
    canvas = np.full((60, 80, 3), 100, dtype=np.uint8)
    draw_region(canvas, MaskRegion(pixels, 20, 10), BLUE)
    for row, column in ((10, 40), (39, 40), (25, 20), (25, 59), (19, 40), (30, 40)):
        assert (canvas[row, column] == BLUE).all()
    assert canvas[15, 25].tolist() == [55, 55, 145]
    assert (canvas[22:28, 37:43] == 100).all()
    assert (canvas[:8] == 100).all()


def test_a_region_of_no_pixels_leaves_no_mark() -> None:
    canvas = np.full((60, 80, 3), 100, dtype=np.uint8)
    draw_region(canvas, MaskRegion(np.zeros((0, 0), dtype=np.bool_), 0, 0), BLUE)
    assert (canvas == 100).all()
