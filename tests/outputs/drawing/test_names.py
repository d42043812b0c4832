import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from d2serve.masks.paste import MaskRegion
from d2serve.outputs.drawing import Spot, draw_name, label_font, widest_spot

SIZE_HW = (100, 200)


def drawn(spot: Spot, name: str = "grass") -> npt.NDArray[np.uint8]:
    image = Image.new("RGB", SIZE_HW[::-1], (127, 127, 127))
    draw_name(ImageDraw.Draw(image), spot, name, label_font(SIZE_HW))
    return np.asarray(image)


def test_the_widest_spot_is_within_the_widest_part() -> None:
    pixels = np.zeros((40, 60), dtype=np.bool_)
    pixels[:, 5] = True
    pixels[10:31, 20:41] = True
    spot = widest_spot(MaskRegion(pixels, 100, 50))
    assert (spot.x, spot.y) == (130, 70)
    assert spot.radius == pytest.approx(11, abs=0.5)


def test_the_widest_spot_of_a_whole_picture_is_its_middle() -> None:
    spot = widest_spot(MaskRegion(np.ones((21, 31), dtype=np.bool_), 0, 0))
    assert spot.radius == pytest.approx(11, abs=0.5)
    assert spot.y == 10
    assert 10 <= spot.x <= 20


def test_a_name_is_white_on_a_dark_rim_around_its_spot() -> None:
    canvas = drawn(Spot(100, 50, 40))
    rows, columns = np.nonzero((canvas != 127).any(axis=2))
    assert abs(rows.mean() - 50) < 3
    assert abs(columns.mean() - 100) < 3
    assert (canvas == 255).any()
    assert (canvas == 0).any()


def test_a_spot_that_is_too_low_has_no_name() -> None:
    assert (drawn(Spot(100, 50, 8)) == 127).all()


@pytest.mark.parametrize("place", [(0, 0), (199, 0), (0, 99), (199, 99)])
def test_the_whole_name_is_inside_the_picture(place: tuple[int, int]) -> None:
    inside, at_the_edge = (drawn(Spot(*spot, 40)) != 127 for spot in ((100, 50), place))
    # Letters between pixels have softer edges.
    assert at_the_edge.sum() > 0.95 * inside.sum()
