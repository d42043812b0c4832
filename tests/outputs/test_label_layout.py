"""Places of labels."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2serve.outputs.label_layout import place_labels

SIZE_HW = (200, 300)
WIDTH, HEIGHT = 60.0, 16.0


def places(*boxes: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    sizes = [(WIDTH, HEIGHT)] * len(boxes)
    return place_labels(np.array(boxes, np.float32).reshape(-1, 4), sizes, SIZE_HW)


def overlap(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> bool:
    return bool((np.abs(first - second) < (WIDTH, HEIGHT)).all())


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((20, 50, 120, 150), (20, 34), id="above"),
        pytest.param((20, 16, 120, 150), (20, 0), id="above-at-the-edge"),
        pytest.param((20, 15, 120, 150), (20, 15), id="inside-at-the-top"),
        pytest.param((280, 50, 299, 150), (240, 34), id="right-edge"),
        pytest.param((-20, 50, 99, 150), (0, 34), id="left-edge"),
        pytest.param((20, 198, 99, 200), (20, 182), id="bottom"),
    ],
)
def test_a_label_alone_is_at_its_usual_place(
    box: tuple[float, float, float, float], expected: tuple[float, float]
) -> None:
    assert places(box).tolist() == [list(expected)]


def test_no_boxes_have_no_labels() -> None:
    assert places().shape == (0, 2)


@pytest.mark.parametrize(
    "boxes",
    [
        pytest.param([(20, 60, 120, 150)] * 7, id="same-box"),
        pytest.param([(20, 0, 120, 150)] * 4, id="same-box-at-the-top"),
        pytest.param([(0, 0, 300, 200)] * 6, id="whole-image"),
        pytest.param([(20, 60, 120, 150), (40, 63, 130, 160)], id="almost-the-same"),
        pytest.param([(20, 60, 120, 150), (25, 76, 60, 100)], id="below-the-other's-edge"),
    ],
)
def test_labels_do_not_cover_each_other(boxes: list[tuple[float, float, float, float]]) -> None:
    placed = places(*boxes)
    for index, place in enumerate(placed):
        assert not any(overlap(place, other) for other in placed[:index])
    assert placed[0].tolist() == places(boxes[0])[0].tolist()


def test_image_smaller_than_the_label() -> None:
    box = np.array([[0, 0, 5, 5], [0, 0, 5, 5]], np.float32)
    assert place_labels(box, [(WIDTH, HEIGHT)] * 2, (5, 5)).tolist() == [[0, 0], [0, 0]]


@given(st.lists(st.tuples(*[st.floats(-50, 400, width=32)] * 4), max_size=20))
def test_labels_are_inside_the_image(boxes: list[tuple[float, float, float, float]]) -> None:
    placed = places(*boxes)
    assert (placed >= 0).all()
    assert (placed <= (SIZE_HW[1] - WIDTH, SIZE_HW[0] - HEIGHT)).all()
