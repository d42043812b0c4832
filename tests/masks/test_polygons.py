"""Polygons of masks, rasterized again with pycocotools."""

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter

from d2serve.masks.paste import MaskRegion
from d2serve.masks.polygons import encode_polygons


def mask_of(*rows: str) -> npt.NDArray[np.bool_]:
    """Rows of `#` for set and `.` for unset pixels."""
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("region", "outlines"),
    [
        pytest.param(MaskRegion(mask_of("...", "..."), 2, 1), [], id="empty"),
        pytest.param(MaskRegion(np.zeros((0, 0), dtype=bool), 0, 0), [], id="no-pixels"),
        pytest.param(
            MaskRegion(mask_of("#"), 0, 0), [{(0, 0), (0, 1), (1, 1), (1, 0)}], id="a-pixel"
        ),
        pytest.param(
            MaskRegion(mask_of("#"), 7, 5), [{(7, 5), (7, 6), (8, 6), (8, 5)}], id="a-pixel-inside"
        ),
        pytest.param(
            MaskRegion(mask_of("####", "####"), 3, 2),
            [{(3, 2), (3, 4), (7, 4), (7, 2)}],
            id="a-rectangle",
        ),
        pytest.param(
            MaskRegion(mask_of("#.", "##"), 0, 0),
            [{(0, 0), (0, 2), (2, 2), (2, 1), (1, 1), (1, 0)}],
            id="an-inner-corner-stays-sharp",
        ),
        pytest.param(
            MaskRegion(mask_of("#.#", "###"), 0, 0),
            [{(0, 0), (0, 2), (3, 2), (3, 0), (2, 0), (2, 1), (1, 1), (1, 0)}],
            id="a-notch-of-one-pixel",
        ),
        pytest.param(
            MaskRegion(mask_of("#.", ".#"), 0, 0),
            [{(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 1), (1, 0)}],
            id="pixels-that-touch-at-a-corner-share-an-outline",
        ),
        pytest.param(
            MaskRegion(mask_of("###", "#.#", "###"), 0, 0),
            [{(0, 0), (0, 3), (3, 3), (3, 0)}],
            id="a-hole-is-not-outlined",
        ),
        pytest.param(
            MaskRegion(mask_of("#..#"), 0, 0),
            [{(0, 0), (0, 1), (1, 1), (1, 0)}, {(3, 0), (3, 1), (4, 1), (4, 0)}],
            id="two-apart",
        ),
    ],
)
def test_outlines_follow_pixel_corners(
    region: MaskRegion, outlines: list[set[tuple[int, int]]]
) -> None:
    found = [set(points_of(polygon)) for polygon in encode_polygons(region)]
    assert sorted(found, key=min) == outlines


def points_of(polygon: list[int]) -> list[tuple[int, int]]:
    return list(zip(polygon[::2], polygon[1::2], strict=True))


def test_points_are_at_corners_only() -> None:
    for seed in range(200):
        for polygon in encode_polygons(random_region(seed)):
            points = np.array(points_of(polygon))
            along_x, along_y = (np.roll(points, -1, axis=0) != points).T
            assert (along_x ^ along_y).all()
            assert (along_x ^ np.roll(along_x, -1)).all()


@pytest.mark.parametrize("smoothness", [0.0, 0.8, 3.0], ids=["noise", "speckles", "blobs"])
def test_pycocotools_rasterizes_the_mask_with_filled_holes(smoothness: float) -> None:
    for seed in range(300):
        region = random_region(seed, smoothness)
        expected = binary_fill_holes(region.full((44, 48)))
        np.testing.assert_array_equal(rasterized(encode_polygons(region), (44, 48)), expected)


def random_region(seed: int, smoothness: float = 0.0) -> MaskRegion:
    """A region of random size, position and density within 44 x 48 pixels."""
    generator = np.random.default_rng(seed)
    height, width, y, x = (
        int(number) for number in generator.integers((1, 1, 0, 0), (41, 41, 5, 8))
    )
    noise = gaussian_filter(generator.random((height, width)), smoothness)
    return MaskRegion(noise < np.quantile(noise, generator.random()), x, y)


def rasterized(polygons: list[list[int]], size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    encoded = pycocotools.mask.frPyObjects(polygons, *size_hw) if polygons else []
    merged = pycocotools.mask.merge(encoded)
    return pycocotools.mask.decode(merged).astype(bool) if polygons else np.zeros(size_hw, bool)


def test_large_mask_is_outlined_exactly() -> None:
    rows, columns = np.mgrid[:1080, :1920]
    ellipse = ((rows - 540) / 500) ** 2 + ((columns - 960) / 900) ** 2 < 1
    polygons = encode_polygons(MaskRegion(ellipse, 0, 0))
    assert len(polygons) == 1
    np.testing.assert_array_equal(rasterized(polygons, (1080, 1920)), ellipse)
