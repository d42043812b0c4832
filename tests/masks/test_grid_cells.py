"""The grid cells of masks, and boundary crossings in them."""

import numpy as np

from d2serve.masks.grid_cells import GridCells
from d2serve.masks.sampling import ranges


def cells_of(*rows: str) -> GridCells:
    """Grid cells of one mask, given as rows of digits for tenths."""
    tenths = np.array([[int(digit) for digit in row] for row in rows])
    return GridCells((tenths[None] / 10).astype(np.float32), 0.5, 0.01)


def test_boundary_cells_cross_the_threshold_or_come_near_it() -> None:
    cells = cells_of("900", "990", "099")
    # Cells are numbered by lines, so transposed; the first and last ones are on the frame.
    is_boundary = np.zeros(5 * 5, dtype=int)
    is_boundary[cells.numbers] = 1
    assert is_boundary.reshape(5, 5).T.tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert cells.counts.tolist() == [3, 4, 3, 2, 0]
    assert len(cells_of("444", "444", "444").numbers) == 0
    inside = cells_of("666", "666", "666").numbers.tolist()
    assert not {6, 7, 11, 12} & set(inside)
    assert len(inside) == 12
    assert 6 in cells_of("555", "555", "555").numbers


def test_probabilities_are_interpolated_between_two_lines() -> None:
    cells = cells_of("28", "46")
    crossings = cells.boundary_crossings(np.array([0, 0]), np.array([0.25, 0.75], dtype=np.float32))
    # 0.35 and 0.45 stay below the threshold; 0.65 and 0.55 are next to the frame.
    assert crossings.column.tolist() == [1, 1]
    assert crossings.cell.tolist() == [0, 2]
    np.testing.assert_allclose(crossings.before, [0, 0.55], rtol=1e-6)
    np.testing.assert_allclose(crossings.after, [0.65, 0], rtol=1e-6)


def test_ranges() -> None:
    crossings = ranges(np.array([5, 0, 7, -2]), np.array([2, 0, 1, 3]))
    assert crossings.tolist() == [5, 6, 7, -2, -1, 0]
    nothing = np.empty(0, dtype=np.int64)
    assert ranges(nothing, nothing).tolist() == []
