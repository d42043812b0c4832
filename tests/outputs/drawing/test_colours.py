import numpy as np
import pytest

from d2serve.outputs.drawing import instance_colour, readable_on, stuff_colour


def test_successive_instances_differ_clearly() -> None:
    colours = np.array([instance_colour(index) for index in range(50)])
    assert ((colours >= 0) & (colours <= 255)).all()
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 100


def test_stuff_classes_differ_and_are_duller_than_instances() -> None:
    colours = np.array([stuff_colour(index) for index in range(200)])
    assert ((colours >= 0) & (colours <= 255)).all()
    assert len(np.unique(colours, axis=0)) > 150
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 50
    instances = np.array([instance_colour(index) for index in range(200)])
    assert np.ptp(colours, axis=1).max() < 0.6 * np.ptp(instances, axis=1).min()


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0, 0, 0), 255), ((255, 255, 255), 0), ((0, 0, 255), 255), ((255, 255, 0), 0)],
)
def test_letters_stand_out(colour: tuple[int, int, int], expected: int) -> None:
    assert readable_on(colour) == (expected,) * 3
