"""Run-length encoding of masks, compared with pycocotools."""

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import pytest

from d2serve.masks.paste import MaskRegion
from d2serve.masks.rle import encode_rles, run_lengths
from d2serve.masks.runs import Runs


def coco(region: MaskRegion, size_hw: tuple[int, int]) -> dict[str, object]:
    """The reference: pycocotools on the whole image's mask."""
    mask = np.asfortranarray(region.full(size_hw).astype(np.uint8))
    encoded = pycocotools.mask.encode(mask)
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def runs_of(regions: list[MaskRegion], size_hw: tuple[int, int]) -> Runs:
    """The runs of masks of one image."""
    columns = [region.full(size_hw).T.ravel() for region in regions]
    bounds = [np.flatnonzero(np.diff(mask, prepend=False, append=False)) for mask in columns]
    offsets = np.cumsum([0, *(len(each) for each in bounds)])
    return Runs(np.concatenate(bounds), offsets, size_hw)


def encode_rle(region: MaskRegion, size_hw: tuple[int, int]) -> dict[str, object]:
    [encoded] = encode_rles(runs_of([region], size_hw))
    return encoded


def block(height: int, width: int, value: bool = True) -> npt.NDArray[np.bool_]:
    return np.full((height, width), value, dtype=np.bool_)


def stripes(height: int, width: int, offset: int) -> npt.NDArray[np.bool_]:
    """Every other column set."""
    return np.tile((np.arange(width) + offset) % 2 == 0, (height, 1))


@pytest.mark.parametrize(
    ("region", "size_hw"),
    [
        pytest.param(MaskRegion(block(3, 4, False), 2, 2), (9, 11), id="empty"),
        pytest.param(MaskRegion(block(9, 11, False), 0, 0), (9, 11), id="empty-of-full-size"),
        pytest.param(MaskRegion(block(0, 0), 0, 0), (9, 11), id="region-without-pixels"),
        pytest.param(MaskRegion(block(9, 11), 0, 0), (9, 11), id="full"),
        pytest.param(MaskRegion(block(1, 1), 0, 0), (1, 1), id="image-of-one-set-pixel"),
        pytest.param(MaskRegion(block(1, 1, False), 0, 0), (1, 1), id="one-unset-pixel"),
        pytest.param(MaskRegion(block(1, 1), 0, 0), (9, 11), id="first-pixel"),
        pytest.param(MaskRegion(block(1, 1), 10, 8), (9, 11), id="last-pixel"),
        pytest.param(MaskRegion(block(1, 1), 0, 8), (9, 11), id="bottom-left-pixel"),
        pytest.param(MaskRegion(block(1, 1), 10, 0), (9, 11), id="top-right-pixel"),
        pytest.param(MaskRegion(block(1, 1), 4, 5), (9, 11), id="a-pixel-inside"),
        pytest.param(MaskRegion(block(3, 4), 0, 2), (9, 11), id="at-the-left"),
        pytest.param(MaskRegion(block(3, 4), 7, 2), (9, 11), id="at-the-right"),
        pytest.param(MaskRegion(block(3, 4), 3, 0), (9, 11), id="at-the-top"),
        pytest.param(MaskRegion(block(3, 4), 3, 6), (9, 11), id="at-the-bottom"),
        pytest.param(MaskRegion(block(9, 4), 3, 0), (9, 11), id="full-height-columns-merge"),
        pytest.param(MaskRegion(stripes(9, 5, 0), 3, 0), (9, 11), id="full-height-every-other"),
        pytest.param(MaskRegion(stripes(9, 11, 0), 0, 0), (9, 11), id="stripes-from-the-left"),
        pytest.param(MaskRegion(stripes(9, 11, 1), 0, 0), (9, 11), id="stripes-from-the-second"),
        pytest.param(MaskRegion(block(9, 11) ^ np.eye(9, 11, dtype=bool), 0, 0), (9, 11), id="eye"),
        pytest.param(MaskRegion(np.eye(11, dtype=bool), 0, 0), (11, 11), id="diagonal"),
        pytest.param(MaskRegion(block(1, 300), 0, 0), (1, 300), id="one-row"),
        pytest.param(MaskRegion(block(300, 1), 0, 0), (300, 1), id="one-column"),
        pytest.param(MaskRegion(block(5, 4), 2900, 1990), (2000, 3000), id="long-runs"),
        pytest.param(MaskRegion(block(40, 2), 3, 7), (2000, 3000), id="differences-below-zero"),
    ],
)
def test_encoded_mask_equals_pycocotools(region: MaskRegion, size_hw: tuple[int, int]) -> None:
    assert encode_rle(region, size_hw) == coco(region, size_hw)


@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_random_masks_equal_pycocotools(density: float) -> None:
    generator = np.random.default_rng(7)
    for _ in range(300):
        height, width = generator.integers(1, 40, 2)
        rows, columns = generator.integers(1, height + 1), generator.integers(1, width + 1)
        region = MaskRegion(
            generator.random((rows, columns)) < density,
            x=int(generator.integers(0, width - columns + 1)),
            y=int(generator.integers(0, height - rows + 1)),
        )
        size_hw = (int(height), int(width))
        assert encode_rle(region, size_hw) == coco(region, size_hw)


def test_runs_of_full_height_masks_merge_over_columns() -> None:
    generator = np.random.default_rng(8)
    for density in np.linspace(0.05, 0.95, 40):
        region = MaskRegion(generator.random((4, 30)) < density, x=2, y=0)
        assert encode_rle(region, (4, 35)) == coco(region, (4, 35))


def test_pycocotools_decodes_the_same_mask() -> None:
    region = MaskRegion(np.random.default_rng(9).random((50, 70)) < 0.5, x=11, y=5)
    decoded = pycocotools.mask.decode(encode_rle(region, (64, 96)))
    np.testing.assert_array_equal(decoded, region.full((64, 96)))


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        pytest.param(MaskRegion(block(2, 3, False), 0, 0), [6], id="empty"),
        pytest.param(MaskRegion(block(2, 3), 0, 0), [0, 6], id="full"),
        pytest.param(MaskRegion(block(1, 1), 1, 0), [2, 1, 3], id="a-pixel"),
        pytest.param(MaskRegion(block(1, 1), 2, 1), [5, 1], id="the-last-pixel"),
        pytest.param(MaskRegion(block(2, 2), 1, 0), [2, 4], id="merged-columns"),
        pytest.param(MaskRegion(block(1, 3), 0, 1), [1, 1, 1, 1, 1, 1], id="the-bottom-row"),
    ],
)
def test_run_lengths_go_down_the_columns(region: MaskRegion, expected: list[int]) -> None:
    lengths, offsets = run_lengths(runs_of([region], (2, 3)))
    assert lengths.tolist() == expected
    assert offsets.tolist() == [0, len(expected)]


def test_masks_encoded_together_equal_pycocotools() -> None:
    generator = np.random.default_rng(10)
    size_hw = (7, 6)
    masks = generator.random((400, *size_hw)) < generator.random((400, 1, 1)) * 1.4 - 0.2
    assert {0, 42} < set(masks.sum(axis=(1, 2)).tolist()), "includes empty and full masks"
    regions = [MaskRegion(mask, 0, 0) for mask in masks]
    assert encode_rles(runs_of(regions, size_hw)) == [coco(each, size_hw) for each in regions]
