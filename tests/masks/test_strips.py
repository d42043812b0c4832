"""Strips of runs of small masks."""

from itertools import pairwise

import numpy as np
import pytest

from d2serve.masks.strips import strips_of
from tests.masks.test_outlines import mask_of, runs_of


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(("....", "...."), [], id="empty"),
        pytest.param((".##.", "###."), [[(0, 1, 2), (1, 0, 2), (2, 0, 2)]], id="one"),
        pytest.param(("#.", ".#"), [[(0, 0, 1), (1, 1, 2)]], id="touching-at-a-corner"),
        pytest.param(("#.", "..", ".#"), [[(0, 0, 1)], [(1, 2, 3)]], id="apart"),
        pytest.param(("#.#",), [[(0, 0, 1)], [(2, 0, 1)]], id="a-column-between"),
        pytest.param(
            ("##", "..", "##"),
            [[(0, 0, 1), (1, 0, 1)], [(0, 2, 3), (1, 2, 3)]],
            id="one-above-the-other",
        ),
        pytest.param(
            ("##.", "#.#", "###"),
            [[(0, 0, 3)], [(1, 0, 1)], [(2, 1, 3)], [(1, 2, 3)]],
            id="a-fork-and-its-end",
        ),
        pytest.param(
            ("##", ".#", "#."), [[(0, 0, 1)], [(1, 0, 2)], [(0, 2, 3)]], id="two-by-a-corner"
        ),
        pytest.param(
            ("###", "###"), [[(0, 0, 2), (1, 0, 2), (2, 0, 2)]], id="a-run-of-several-columns"
        ),
    ],
)
def test_strips(rows: tuple[str, ...], expected: list[list[tuple[int, int, int]]]) -> None:
    assert strips(rows) == expected


def strips(rows: tuple[str, ...]) -> list[list[tuple[int, int, int]]]:
    """Column, top and bottom of the runs of each strip."""
    found = strips_of(runs_of(mask_of(*rows)[None]))
    assert not found.masks.any()
    parts = np.stack((found.columns, found.tops, found.bottoms), axis=1).tolist()
    ends = [*found.firsts.tolist(), len(parts)]
    return [
        [(x, top, bottom) for x, top, bottom in parts[start:end]] for start, end in pairwise(ends)
    ]


def test_strips_of_two_masks_are_apart() -> None:
    """The last column of the first mask and the first column of the second one."""
    found = strips_of(runs_of(np.stack((mask_of("..#"), mask_of("#..")))))
    assert found.masks.tolist() == [0, 1]
    assert found.firsts.tolist() == [0, 1]
