"""Box arithmetic and anchors equal plain loops."""

import math

import pytest
import torch

from d2serve.model.anchors import cell_anchors, grid_anchors
from d2serve.model.structures import LOG_SCALE_LIMIT, apply_deltas, clip, larger_than


def apply_by_formula(
    delta: list[float], box: list[float], weights: tuple[float, ...]
) -> tuple[float, float, float, float]:
    width, height = box[2] - box[0], box[3] - box[1]
    x = box[0] + width / 2 + delta[0] / weights[0] * width
    y = box[1] + height / 2 + delta[1] / weights[1] * height
    new_width = math.exp(min(delta[2] / weights[2], LOG_SCALE_LIMIT)) * width
    new_height = math.exp(min(delta[3] / weights[3], LOG_SCALE_LIMIT)) * height
    return x - new_width / 2, y - new_height / 2, x + new_width / 2, y + new_height / 2


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("classes", [1, 3])
def test_apply_deltas_equals_the_formula(count: int, classes: int) -> None:
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(count, 4, generator=random) * 50
    boxes[:, 2:] += boxes[:, :2]
    deltas = torch.randn(count, classes * 4, generator=random) * 3
    weights = (10.0, 8.0, 0.5, 4.0)
    moved = apply_deltas(deltas, boxes, weights)
    assert moved.shape == (count, classes, 4)
    for row in range(count):
        for index in range(classes):
            delta = deltas[row, index * 4 : index * 4 + 4].tolist()
            expected = torch.tensor(apply_by_formula(delta, boxes[row].tolist(), weights))
            torch.testing.assert_close(moved[row, index], expected, rtol=1e-4, atol=1e-3)


def test_clip_limits_x_to_the_width_and_y_to_the_height() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 300.0, 200.0], [1.0, 2.0, 3.0, 4.0]])
    limits = torch.tensor([250.0, 100.0, 250.0, 100.0])
    assert clip(boxes, limits).tolist() == [[0, 0, 250, 100], [1, 2, 3, 4]]
    assert clip(boxes[:0], limits).shape == (0, 4)


def test_larger_than_requires_both_sides() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [0, 0, 5, 2], [0, 0, 2, 5], [0, 0, 0, 0]])
    assert larger_than(boxes, 2).tolist() == [True, False, False, False]


def test_cell_anchors_have_the_configured_areas_and_ratios() -> None:
    anchors = cell_anchors([32, 64], [0.5, 1.0, 2.0])
    assert anchors.shape == (6, 4)
    widths, heights = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    torch.testing.assert_close(
        widths * heights, torch.tensor([32.0**2] * 3 + [64.0**2] * 3), rtol=1e-5, atol=0.01
    )
    torch.testing.assert_close(heights / widths, torch.tensor([0.5, 1.0, 2.0] * 2))
    torch.testing.assert_close(anchors[:, :2], -anchors[:, 2:])


def test_grid_anchors_are_ordered_by_row_column_and_anchor() -> None:
    cell = torch.tensor([[-1.0, -1, 1, 1], [-2, -2, 2, 2]])
    anchors = grid_anchors(cell, (2, 3), stride=8, offset=0.5)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[x * 8 + 4, y * 8 + 4] for y in range(2) for x in range(3) for _ in range(2)]
    assert centres.tolist() == expected
    assert (anchors[:, 2] - anchors[:, 0]).tolist() == [2, 4] * 6
