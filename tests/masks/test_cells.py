import numpy as np

from d2serve.masks.grid_cells import Cells
from d2serve.masks.sampling import ranges


def cells_of(*rows: str) -> Cells:
    """Cells of one mask, whose values are digits that stand for tenths."""
    tenths = np.array([[int(digit) for digit in row] for row in rows])
    return Cells((tenths[None] / 10).astype(np.float32), 0.5, 0.01)


def test_only_cells_in_which_the_threshold_is_crossed_or_near_are_undecided() -> None:
    cells = cells_of("900", "990", "099")
    # By lines, so mirrored at the diagonal; the frame's cells come first and last.
    undecided = np.zeros(5 * 5, dtype=int)
    undecided[cells.numbers] = 1
    assert undecided.reshape(5, 5).T.tolist() == [
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


def test_a_column_crosses_between_the_values_of_its_two_lines() -> None:
    cells = cells_of("28", "46")
    found = cells.crossings(np.array([0, 0]), np.array([0.25, 0.75], dtype=np.float32))
    # 0.35 and 0.45 stay below; 0.65 and 0.55 come from the frame and go back to it.
    assert found.column.tolist() == [1, 1]
    assert found.interval.tolist() == [0, 2]
    np.testing.assert_allclose(found.before, [0, 0.55], rtol=1e-6)
    np.testing.assert_allclose(found.after, [0.65, 0], rtol=1e-6)


def test_ranges_follow_each_other() -> None:
    found = ranges(np.array([5, 0, 7, -2]), np.array([2, 0, 1, 3]))
    assert found.tolist() == [5, 6, 7, -2, -1, 0]
    nothing = np.empty(0, dtype=np.int64)
    assert ranges(nothing, nothing).tolist() == []
