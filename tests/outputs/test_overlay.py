import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from handler.detections import Detections
from handler.errors import RequestError
from handler.outputs.overlay import draw_detections, instance_colour, overlay_body
from tests.bodies import noise
from tests.fakes import detections_of

NAMES = ("ball",)
SIZE_HW = (120, 200)
BOX = (60.0, 50.0, 120.0, 100.0)


def full_masks(size_hw: tuple[int, int], boxes: Sequence[Sequence[float]]) -> Detections:
    """Detections whose masks fill their boxes."""
    found = detections_of(size_hw, boxes, mask_side=None)
    return Detections(
        size_hw=size_hw,
        boxes_xyxy=found.boxes_xyxy,
        scores=found.scores,
        classes=found.classes,
        masks=np.ones((len(boxes), 28, 28), dtype=np.float32),
    )


def decoded(body: bytes) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(body)))


@pytest.mark.parametrize(
    ("media_type", "file_format"), [("image/jpeg", "JPEG"), ("image/png", "PNG")]
)
@pytest.mark.parametrize("count", [0, 1], ids=["nothing-found", "one-found"])
def test_the_body_is_an_image_of_the_same_size_in_the_wanted_format(
    media_type: str, file_format: str, count: int
) -> None:
    found = full_masks(SIZE_HW, [BOX] * count)
    body = overlay_body(noise(*SIZE_HW, 3), found, NAMES, media_type)
    image = Image.open(io.BytesIO(body))
    assert image.format == file_format
    assert (image.mode, image.size) == ("RGB", (200, 120))


def test_a_png_without_detections_is_the_picture_as_it_was() -> None:
    picture = noise(*SIZE_HW, 3)
    body = overlay_body(picture, full_masks(SIZE_HW, []), NAMES, "image/png")
    np.testing.assert_array_equal(decoded(body), picture)


def test_a_jpeg_without_detections_is_nearly_the_picture() -> None:
    picture = np.full((*SIZE_HW, 3), (10, 120, 240), dtype=np.uint8)
    body = overlay_body(picture, full_masks(SIZE_HW, []), NAMES, "image/jpeg")
    assert np.abs(decoded(body).astype(int) - picture).max() <= 6


def test_the_mask_is_tinted_and_what_is_far_outside_stays() -> None:
    picture = np.full((*SIZE_HW, 3), 127, dtype=np.uint8)
    drawn = decoded(overlay_body(picture, full_masks(SIZE_HW, [BOX]), NAMES, "image/png"))
    changed = (drawn != picture).any(axis=2)
    assert changed[50:100, 60:120].all()
    label_and_outline = np.zeros(SIZE_HW, dtype=np.bool_)
    label_and_outline[30:102, 58:122] = True
    assert not changed[~label_and_outline].any()


def test_the_tint_is_a_blend_of_the_picture_and_the_instances_colour() -> None:
    picture = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    drawn = draw_detections(picture, full_masks(SIZE_HW, [BOX]), NAMES)
    expected = 100 * 0.55 + np.array(instance_colour(0)) * 0.45
    assert np.abs(drawn[80, 90] - expected).max() <= 1


def test_only_the_masks_own_pixels_are_tinted() -> None:
    masks = np.zeros((1, 28, 28), dtype=np.float32)
    masks[:, :14] = 1
    upper_half = Detections(
        size_hw=SIZE_HW,
        boxes_xyxy=np.array([BOX], dtype=np.float32),
        scores=np.ones(1, dtype=np.float32),
        classes=np.zeros(1, dtype=np.int64),
        masks=masks,
    )
    picture = noise(*SIZE_HW, 3)
    changed = (draw_detections(picture, upper_half, NAMES) != picture).any(axis=2)
    assert changed[55:70, 65:115].mean() > 0.95
    assert not changed[80:95, 65:115].any()


def test_without_masks_the_box_and_label_are_drawn_alone() -> None:
    picture = np.full((*SIZE_HW, 3), 127, dtype=np.uint8)
    found = detections_of(SIZE_HW, [BOX], mask_side=None)
    drawn = draw_detections(picture, found, NAMES)
    np.testing.assert_array_equal(drawn[51:99, 61:119], picture[51:99, 61:119])
    edges = [drawn[50:100, 60], drawn[50:100, 119], drawn[50, 60:120], drawn[99, 60:120]]
    for edge in edges:
        assert (edge == instance_colour(0)).all()


def test_the_given_picture_is_left_unchanged() -> None:
    picture = noise(*SIZE_HW, 3)
    before = picture.copy()
    draw_detections(picture, full_masks(SIZE_HW, [BOX, (0, 0, 200, 120)]), NAMES)
    np.testing.assert_array_equal(picture, before)


def test_a_picture_that_cannot_be_written_to_is_drawn_too() -> None:
    picture = noise(*SIZE_HW, 3)
    picture.flags.writeable = False
    drawn = draw_detections(picture, full_masks(SIZE_HW, [BOX]), NAMES)
    assert (drawn != picture).any()


def test_the_surest_detection_is_on_top() -> None:
    same_place = full_masks(SIZE_HW, [BOX, BOX])
    drawn = draw_detections(np.zeros((*SIZE_HW, 3), np.uint8), same_place, NAMES)
    assert (drawn[99, 62:118] == instance_colour(0)).all()


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((60, 0, 120, 60), id="at-the-top"),
        pytest.param((150, 0, 200, 60), id="in-the-top-right-corner"),
        pytest.param((0, 60, 40, 120), id="at-the-left"),
        pytest.param((199, 60, 200, 120), id="thin-at-the-right"),
        pytest.param((60, 118, 120, 120), id="flat-at-the-bottom"),
    ],
)
def test_the_whole_label_is_inside_the_picture(box: tuple[int, int, int, int]) -> None:
    black = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    at_the_edge = draw_detections(black, detections_of(SIZE_HW, [box], mask_side=None), NAMES)
    inside = draw_detections(
        black, detections_of(SIZE_HW, [(60, 60, 120, 110)], mask_side=None), NAMES
    )
    assert count_text_pixels(at_the_edge) == count_text_pixels(inside) > 0


def count_text_pixels(drawn: npt.NDArray[np.uint8]) -> int:
    """Pixels of a drawing of one box on black that are neither black nor of the box's colour."""
    is_box = (drawn == instance_colour(0)).all(axis=2)
    return int((drawn.any(axis=2) & ~is_box).sum())


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((40.2, 5, 40.7, 100), id="thinner-than-a-pixel"),
        pytest.param((5, 30.45, 150, 30.55), id="flatter-than-a-pixel"),
        pytest.param((199.9, 119.9, 200, 120), id="a-crumb-in-the-last-corner"),
        pytest.param((0, 0, 0.1, 0.1), id="a-crumb-in-the-first-corner"),
        pytest.param((10, 10, 11, 11), id="one-pixel"),
        pytest.param((0, 0, 200, 120), id="the-whole-picture"),
    ],
)
def test_boxes_of_extreme_sizes_are_drawn(box: tuple[float, float, float, float]) -> None:
    picture = noise(*SIZE_HW, 3)
    drawn = decoded(overlay_body(picture, full_masks(SIZE_HW, [box]), NAMES, "image/png"))
    assert drawn.shape == picture.shape
    assert (drawn != picture).any()


def test_a_picture_of_one_pixel_is_drawn() -> None:
    drawn = draw_detections(noise(1, 1, 3), full_masks((1, 1), [(0, 0, 1, 1)]), NAMES)
    assert drawn.shape == (1, 1, 3)


def test_successive_instances_differ_clearly_in_colour() -> None:
    colours = np.array([instance_colour(index) for index in range(50)])
    assert ((colours >= 0) & (colours <= 255)).all()
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 100


def test_a_picture_too_long_for_a_jpeg_is_a_406_that_names_png() -> None:
    size_hw = (1, 65_501)
    picture = np.zeros((*size_hw, 3), dtype=np.uint8)
    nothing = detections_of(size_hw, [])
    with pytest.raises(RequestError, match="65500") as raised:
        overlay_body(picture, nothing, [], "image/jpeg")
    assert (raised.value.status, "image/png" in raised.value.hint) == (406, True)
    assert overlay_body(picture, nothing, [], "image/png")
