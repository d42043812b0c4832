from dataclasses import replace

import numpy as np

from d2serve.detections import Detections
from d2serve.outputs.overlay import stuff_of
from tests.outputs.results import TWO, TWO_OF_ALL


def classes_of(found: Detections) -> list[int]:
    return [stuff.class_index for stuff in stuff_of(found)]


def test_instances_alone_have_no_stuff() -> None:
    assert classes_of(TWO) == []


def test_a_panoptic_map_has_the_stuff_that_is_no_thing() -> None:
    [stuff] = stuff_of(TWO_OF_ALL)
    assert stuff.class_index == 1
    assert TWO_OF_ALL.panoptic is not None
    expected = TWO_OF_ALL.panoptic.ids == 2
    np.testing.assert_array_equal(stuff.region.full(TWO_OF_ALL.size_hw), expected)


def test_a_semantic_map_alone_has_every_class() -> None:
    found = replace(TWO_OF_ALL, panoptic=None)
    assert classes_of(found) == [0, 1, 3]
    assert found.semantic is not None
    for stuff in stuff_of(found):
        expected = found.semantic == stuff.class_index
        np.testing.assert_array_equal(stuff.region.full(found.size_hw), expected)
