"""The boundary cells of masks, and ranges of integers."""

import numpy as np
import pytest
import torch

from d2serve.masks.grid_cells import BoundaryCells, boundary_cells
from d2serve.masks.ranges import ranges
from d2serve.masks.sampling import spread


def cells_of(*rows: str) -> BoundaryCells:
    """Boundary cells of one mask, given as rows of digits for tenths."""
    tenths = np.array([[int(digit) for digit in row] for row in rows], np.float32)
    return boundary_cells(tenths[None] / np.float32(10), 0.49, 0.51)


def drawn(cells: BoundaryCells, side: int) -> list[list[int]]:
    """Rows of 1 for boundary cells; the first and last ones are on the frame."""
    is_boundary = torch.zeros((side, side), dtype=torch.int64)
    is_boundary[cells.rows.long(), cells.lines] = 1
    return is_boundary.tolist()


def test_boundary_cells_cross_the_threshold_or_come_near_it() -> None:
    cells = cells_of("900", "990", "099")
    assert drawn(cells, 5) == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert cells.lines.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert len(cells_of("444", "444", "444").rows) == 0
    inside = drawn(cells_of("666", "666", "666"), 5)
    assert [row[1:3] for row in inside[1:3]] == [[0, 0], [0, 0]]
    assert sum(map(sum, inside)) == 12
    assert drawn(cells_of("555", "555", "555"), 5)[1][1] == 1


def test_probabilities_at_the_corners_of_a_cell() -> None:
    cells = cells_of("28", "46")
    second = cells.lines.tolist().index(1)
    # Between the nodes 0.2 and 0.8, next to the frame above them.
    assert cells.rows[second] == 0
    (upper_left, lower_left), (upper_right, lower_right) = cells.corners[..., second].tolist()
    assert upper_left == upper_right == 0
    assert (lower_left, lower_right) == pytest.approx((0.2, 0.8))


def test_cells_of_several_masks() -> None:
    cells = boundary_cells(np.array([[[0.9]], [[0.1]], [[0.5]]], np.float32), 0.49, 0.51)
    assert cells.lines.tolist() == [0, 0, 1, 1, 6, 6, 7, 7]
    assert cells.rows.tolist() == [0, 1] * 4
    assert cells.masks.tolist() == [0] * 4 + [2] * 4


def test_ranges() -> None:
    starts, lengths = np.array([5, 0, 7, -2]), np.array([2, 0, 1, 3])
    assert ranges(starts, lengths).tolist() == [5, 6, 7, -2, -1, 0]
    nothing = np.empty(0, dtype=np.int64)
    assert ranges(nothing, nothing).tolist() == []


def test_spread() -> None:
    starts, lengths = torch.tensor([5, 0, 7, -2]), torch.tensor([2, 0, 1, 3])
    owners, numbers = spread(starts, lengths)
    assert owners.tolist() == [0, 0, 2, 3, 3, 3]
    assert numbers.tolist() == [5, 6, 7, -2, -1, 0]
    assert [len(each) for each in spread(starts[:0], lengths[:0])] == [0, 0]
