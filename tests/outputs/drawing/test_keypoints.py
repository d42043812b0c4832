import numpy as np
import numpy.typing as npt
import pytest

from d2serve.outputs.drawing import draw_keypoints

GREY = 127
GREEN = (0, 255, 0)
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = 5, 7, 9


def drawn(keypoints: npt.ArrayLike, side: int = 100) -> npt.NDArray[np.uint8]:
    canvas = np.full((side, side, 3), GREY, dtype=np.uint8)
    draw_keypoints(canvas, np.array(keypoints, dtype=np.float32), GREEN)
    return canvas


def person(**places: tuple[float, float]) -> npt.NDArray[np.float32]:
    """COCO's 17 keypoints, of which only these are sure."""
    keypoints = np.zeros((17, 3), dtype=np.float32)
    indices = {"shoulder": LEFT_SHOULDER, "elbow": LEFT_ELBOW, "wrist": LEFT_WRIST}
    for name, place in places.items():
        keypoints[indices[name]] = (*place, 0.9)
    return keypoints


@pytest.mark.parametrize(("score", "is_drawn"), [(0.04, False), (0.06, True)])
def test_only_sure_points_are_drawn(score: float, is_drawn: bool) -> None:
    assert (drawn([(30, 40, score)]) != GREY).any() == is_drawn


def test_a_point_is_a_white_dot_with_a_dark_rim_around_its_pixel() -> None:
    canvas = drawn([(30.5, 40.5, 0.9)])
    assert (canvas[40, 30] == 255).all()
    changed = (canvas != GREY).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() + rows.max() == 2 * 40
    assert columns.min() + columns.max() == 2 * 30
    assert (canvas[40, columns.min() : columns.max()] < 100).any()


def test_dots_grow_with_the_picture() -> None:
    small, large = (drawn([(50, 50, 0.9)], side) for side in (100, 2000))
    assert (large != GREY).sum() > 4 * (small != GREY).sum()


def test_the_joints_of_people_are_joined_in_the_instances_colour() -> None:
    canvas = drawn(person(shoulder=(20, 20), elbow=(20, 60), wrist=(60, 60)))
    for row, column in ((40, 20), (60, 40)):
        assert (canvas[row, column] == GREEN).all()
    assert (canvas[40, 40] == GREY).all()


def test_a_joint_that_is_not_sure_ends_no_line() -> None:
    canvas = drawn(person(shoulder=(20, 20), wrist=(60, 60)))
    assert not (canvas == GREEN).all(axis=2).any()


def test_other_numbers_of_keypoints_are_not_joined() -> None:
    ends = person(shoulder=(20, 20), elbow=(20, 60))
    assert (drawn(ends)[40, 20] == GREEN).all()
    assert (drawn(np.vstack((ends, ends[:1])))[40, 20] == GREY).all()


@pytest.mark.parametrize("place", [(0, 0), (100, 100), (-5, 300), (100, 50)])
def test_points_at_the_edge_and_outside_are_drawn_as_far_as_they_can(
    place: tuple[float, float],
) -> None:
    assert drawn([(*place, 0.9)]).shape == (100, 100, 3)
