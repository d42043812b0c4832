import numpy as np
import pytest

from d2serve.masks.paste import label_regions


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([[0, 0], [0, 0]], [], id="no-label"),
        pytest.param([[7]], [7], id="a-pixel"),
        pytest.param([[5, 0, 2], [2, 5, 0]], [2, 5], id="in-rising-order"),
        pytest.param([[3, 0, 0], [0, 0, 3]], [3], id="apart-and-yet-one"),
    ],
)
def test_each_label_of_the_map_but_zero_has_its_pixels(
    labels: list[list[int]], expected: list[int]
) -> None:
    given = np.array(labels, dtype=np.int32)
    found = dict(label_regions(given))
    assert list(found) == expected
    for label, region in found.items():
        size_hw = (len(labels), len(labels[0]))
        np.testing.assert_array_equal(region.full(size_hw), given == label)


def test_a_region_is_as_small_as_its_label() -> None:
    labels = np.zeros((50, 70), dtype=np.int32)
    labels[[10, 14], [20, 22]] = 1
    [(_, region)] = label_regions(labels)
    assert (region.y, region.x, region.pixels.shape) == (10, 20, (5, 3))
