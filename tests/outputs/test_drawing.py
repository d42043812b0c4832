"""Drawing primitives."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from d2serve.masks.paste import MaskRegion
from d2serve.metadata import Labels
from d2serve.outputs.drawing import (
    Circle,
    draw_keypoints,
    draw_name,
    draw_region,
    instance_color,
    largest_circle,
    readable_on,
    stuff_color,
)
from d2serve.outputs.labels import LabelFonts


def test_successive_instances_differ_clearly() -> None:
    colors = np.array([instance_color(index) for index in range(50)])
    assert ((colors >= 0) & (colors <= 255)).all()
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 100


def test_stuff_classes_differ_and_are_duller_than_instances() -> None:
    colors = np.array([stuff_color(index) for index in range(200)])
    assert ((colors >= 0) & (colors <= 255)).all()
    assert len(np.unique(colors, axis=0)) > 150
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 50
    instances = np.array([instance_color(index) for index in range(200)])
    assert np.ptp(colors, axis=1).max() < 0.6 * np.ptp(instances, axis=1).min()


@pytest.mark.parametrize(
    ("color", "expected"),
    [((0, 0, 0), 255), ((255, 255, 255), 0), ((0, 0, 255), 255), ((255, 255, 0), 0)],
)
def test_label_text_contrasts_with_the_color(color: tuple[int, int, int], expected: int) -> None:
    assert readable_on(color) == (expected,) * 3


GRAY = 127
GREEN = (0, 255, 0)
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = 5, 7, 9


def drawn(keypoints: npt.ArrayLike, side: int = 100) -> npt.NDArray[np.uint8]:
    canvas = np.full((side, side, 3), GRAY, dtype=np.uint8)
    draw_keypoints(canvas, np.array(keypoints, dtype=np.float32), GREEN)
    return canvas


def person(**places: tuple[float, float]) -> npt.NDArray[np.float32]:
    """COCO's 17 keypoints; only the given ones have a high score."""
    keypoints = np.zeros((17, 3), dtype=np.float32)
    indices = {"shoulder": LEFT_SHOULDER, "elbow": LEFT_ELBOW, "wrist": LEFT_WRIST}
    for name, place in places.items():
        keypoints[indices[name]] = (*place, 0.9)
    return keypoints


@pytest.mark.parametrize(("score", "is_drawn"), [(0.04, False), (0.06, True)])
def test_only_confident_keypoints_are_drawn(score: float, is_drawn: bool) -> None:
    assert (drawn([(30, 40, score)]) != GRAY).any() == is_drawn


def test_keypoint_is_a_white_dot_with_a_dark_outline() -> None:
    canvas = drawn([(30.5, 40.5, 0.9)])
    assert (canvas[40, 30] == 255).all()
    changed = (canvas != GRAY).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() + rows.max() == 2 * 40
    assert columns.min() + columns.max() == 2 * 30
    assert (canvas[40, columns.min() : columns.max()] < 100).any()


def test_dot_size_scales_with_the_image() -> None:
    small, large = (drawn([(50, 50, 0.9)], side) for side in (100, 2000))
    assert (large != GRAY).sum() > 4 * (small != GRAY).sum()


def test_skeleton_of_a_person_is_drawn() -> None:
    canvas = drawn(person(shoulder=(20, 20), elbow=(20, 60), wrist=(60, 60)))
    for row, column in ((40, 20), (60, 40)):
        assert (canvas[row, column] == GREEN).all()
    assert (canvas[40, 40] == GRAY).all()


def test_uncertain_joint_has_no_lines() -> None:
    canvas = drawn(person(shoulder=(20, 20), wrist=(60, 60)))
    assert not (canvas == GREEN).all(axis=2).any()


def test_other_keypoint_counts_have_no_skeleton() -> None:
    ends = person(shoulder=(20, 20), elbow=(20, 60))
    assert (drawn(ends)[40, 20] == GREEN).all()
    assert (drawn(np.vstack((ends, ends[:1])))[40, 20] == GRAY).all()


@pytest.mark.parametrize(
    "place",
    [
        *((0, 0), (100, 100), (-5, 300), (100, 50), (1e6, 50), (-1e6, -1e6)),
        *((1e9, 50), (50, -1e9), (1e20, 1e20), (3e38, -3e38)),
    ],
)
def test_keypoints_at_the_edge_and_outside_are_clipped(
    place: tuple[float, float],
) -> None:
    near = person(shoulder=(20, 20), elbow=(20, 60))
    far = person(shoulder=(20, 20), elbow=(20, 60), wrist=place)
    canvas = drawn(far)
    assert (canvas[40, 20] == GREEN).all()
    if max(map(abs, place)) > 1e6:
        np.testing.assert_array_equal(canvas, drawn(near))


SIZE_HW = (100, 200)


def drawn_name(circle: Circle, name: str = "grass") -> npt.NDArray[np.uint8]:
    image = Image.new("RGB", SIZE_HW[::-1], (127, 127, 127))
    draw_name(ImageDraw.Draw(image), circle, name, LabelFonts(SIZE_HW, Labels()).of(name))
    return np.asarray(image)


def test_largest_circle_is_in_the_widest_part() -> None:
    pixels = np.zeros((40, 60), dtype=np.bool_)
    pixels[:, 5] = True
    pixels[10:31, 20:41] = True
    circle = largest_circle(MaskRegion(pixels, 100, 50))
    assert (circle.x, circle.y) == (130, 70)
    assert circle.radius == pytest.approx(11, abs=0.5)


def test_largest_circle_of_a_whole_image_is_centered() -> None:
    circle = largest_circle(MaskRegion(np.ones((21, 31), dtype=np.bool_), 0, 0))
    assert circle.radius == pytest.approx(11, abs=0.5)
    assert circle.y == 10
    assert 10 <= circle.x <= 20


def test_name_is_white_with_a_dark_outline() -> None:
    canvas = drawn_name(Circle(100, 50, 40))
    rows, columns = np.nonzero((canvas != 127).any(axis=2))
    assert abs(rows.mean() - 50) < 3
    assert abs(columns.mean() - 100) < 3
    assert (canvas == 255).any()
    assert (canvas == 0).any()


def test_small_circle_has_no_name() -> None:
    assert (drawn_name(Circle(100, 50, 8)) == 127).all()


@pytest.mark.parametrize("place", [(0, 0), (199, 0), (0, 99), (199, 99)])
def test_name_is_inside_the_image(place: tuple[int, int]) -> None:
    inside, at_the_edge = (drawn_name(Circle(*center, 40)) != 127 for center in ((100, 50), place))
    # Letters at fractional positions have softer edges.
    assert at_the_edge.sum() > 0.95 * inside.sum()


BLUE = (0, 0, 200)


def test_region_and_its_holes_are_outlined() -> None:
    pixels = np.ones((30, 40), dtype=np.bool_)
    pixels[10:20, 15:25] = False
    canvas = np.full((60, 80, 3), 100, dtype=np.uint8)
    draw_region(canvas, MaskRegion(pixels, 20, 10), BLUE)
    for row, column in ((10, 40), (39, 40), (25, 20), (25, 59), (19, 40), (30, 40)):
        assert (canvas[row, column] == BLUE).all()
    assert canvas[15, 25].tolist() == [55, 55, 145]
    assert (canvas[22:28, 37:43] == 100).all()
    assert (canvas[:8] == 100).all()


def test_empty_region_draws_nothing() -> None:
    canvas = np.full((60, 80, 3), 100, dtype=np.uint8)
    draw_region(canvas, MaskRegion(np.zeros((0, 0), dtype=np.bool_), 0, 0), BLUE)
    assert (canvas == 100).all()
