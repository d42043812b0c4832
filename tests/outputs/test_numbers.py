import json

import numpy as np
import pytest

from d2serve.outputs.result import relative_boxes, rounded_keypoints, rounded_pixels, rounded_shares
from tests.fakes import detections_of


@pytest.mark.parametrize(
    ("values", "pixels", "shares"),
    [
        pytest.param([], "[]", "[]", id="empty"),
        pytest.param([0.123456789], "[0.123]", "[0.123457]", id="both-rounded"),
        pytest.param([10.1, 2.0], "[10.1, 2.0]", "[10.1, 2.0]", id="shorter-than-single-precision"),
        pytest.param([[0.5, 1.0]], "[[0.5, 1.0]]", "[[0.5, 1.0]]", id="nested"),
    ],
)
def test_numbers_are_rounded_to_a_thousandth_of_a_pixel_and_a_millionth_of_a_share(
    values: list[float], pixels: str, shares: str
) -> None:
    array = np.array(values, dtype=np.float32)
    assert json.dumps(rounded_pixels(array)) == pixels
    assert json.dumps(rounded_shares(array)) == shares


def test_keypoints_are_rounded_as_pixels_and_their_scores_as_shares() -> None:
    keypoints = np.array([[[1.00051, 2.00049, 0.1234567]]], dtype=np.float32)
    assert rounded_keypoints(keypoints) == [[[1.001, 2.0, 0.123457]]]
    assert keypoints[0, 0, 2] == np.float32(0.1234567)


def test_relative_boxes_of_nothing_are_none() -> None:
    assert relative_boxes(detections_of((10, 40), [])).shape == (0, 4)


def test_relative_boxes_divide_x_by_the_width_and_y_by_the_height() -> None:
    found = detections_of((10, 40), [(4, 1, 20, 5)])
    np.testing.assert_allclose(relative_boxes(found), [[0.1, 0.1, 0.5, 0.5]])


def test_relative_boxes_lie_within_0_and_1_in_pictures_of_odd_sizes() -> None:
    height, width = 333, 777
    boxes = [(0, 0, width, height), (776.3, 332.7, width, height), (0, 0, 0.01, 0.01)]
    relative = relative_boxes(detections_of((height, width), boxes))
    assert ((relative >= 0) & (relative <= 1)).all()
    assert (relative[:, :2] <= relative[:, 2:]).all()
    np.testing.assert_array_equal(relative[0], [0, 0, 1, 1])
