"""Polygons of all masks of an image together, compared with those of one mask after the other."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from d2serve.masks import outlines
from d2serve.masks.outlines import encode_outlines
from d2serve.masks.paste import MaskRegion, regions
from d2serve.masks.polygons import encode_polygons
from d2serve.masks.runs import Runs, paste_runs
from tests.masks.instances import random_instances

SIZE_HW = (24, 31)


def runs_of(masks: npt.NDArray[np.bool_]) -> Runs:
    """The runs of Bool[N, H, W]."""
    columns = [mask.T.ravel() for mask in masks]
    bounds = [np.flatnonzero(np.diff(each, prepend=False, append=False)) for each in columns]
    return Runs.of(bounds, (masks.shape[1], masks.shape[2]))


def one_by_one(runs: Runs) -> list[list[list[int]]]:
    return [encode_polygons(region) for region in regions(runs)]


def blobs(count: int, smoothness: float) -> npt.NDArray[np.bool_]:
    """Bool[N, H, W] of any density, from empty to full masks."""
    generator = np.random.default_rng(int(10 * smoothness))
    noise = generator.random((count, *SIZE_HW))
    smooth = np.stack([gaussian_filter(each, smoothness) for each in noise])
    shares = generator.uniform(-0.1, 1.1, (count, 1, 1)).clip(0, 1)
    ranks = smooth.reshape(count, -1).argsort(axis=1).argsort(axis=1).reshape(smooth.shape)
    return ranks < shares * (SIZE_HW[0] * SIZE_HW[1])


@pytest.mark.parametrize("smoothness", [0.0, 0.8, 2.0, 4.0], ids=str)
def test_outlines_of_random_masks_equal_those_of_each_mask(smoothness: float) -> None:
    runs = runs_of(blobs(400, smoothness))
    assert encode_outlines(runs) == one_by_one(runs)


def test_outlines_of_pasted_masks_equal_those_of_each_mask() -> None:
    for instances in random_instances(1_500):
        runs = paste_runs(instances.masks, instances.boxes_xyxy, instances.size_hw)
        assert encode_outlines(runs) == one_by_one(runs)


def mask_of(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "is_traced"),
    [
        pytest.param(mask_of("....", ".##.", ".#..", "...."), True, id="a-corner"),
        pytest.param(mask_of("#...", ".#..", "..#.", ".#.."), True, id="touching-at-corners"),
        pytest.param(mask_of("#.#.", "###.", "#.#.", "...."), True, id="two-runs-per-column"),
        pytest.param(mask_of("###.", "#.#.", "###.", "...."), True, id="a-hole"),
        pytest.param(mask_of("####", "####", "####", "####"), True, id="a-run-of-several-columns"),
        pytest.param(
            mask_of("#####.", "#...#.", "#.#.#.", "#...#.", "#####.", "......"),
            False,
            id="an-island-in-a-hole",
        ),
        pytest.param(
            mask_of("###.#.", "#.#.#.", "###.#.", "......", "......", "......"),
            False,
            id="a-hole-and-another-outline",
        ),
    ],
)
def test_masks_that_are_traced(
    mask: npt.NDArray[np.bool_], is_traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, encoded = one_by_one(runs_of(mask[None])), []

    def spy(region: MaskRegion) -> list[list[int]]:
        encoded.append(region)
        return encode_polygons(region)

    monkeypatch.setattr(outlines, "encode_polygons", spy)
    assert encode_outlines(runs_of(mask[None])) == one
    assert (not encoded) == is_traced


def test_no_masks() -> None:
    nothing = Runs(np.zeros(0, np.int64), np.zeros(1, np.int64), (30, 40))
    assert encode_outlines(nothing) == []
    empty = Runs(np.zeros(0, np.int64), np.zeros(3, np.int64), (30, 40))
    assert encode_outlines(empty) == [[], []]
