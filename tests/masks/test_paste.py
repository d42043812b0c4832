"""Masks pasted from boxes to images, and cropped."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from d2serve.masks.paste import MaskRegion, label_regions, paste_mask

SIZE_HW = (60, 90)


def paste_naively(
    probabilities: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Like Detectron2: sample the mask at every pixel of the image."""
    x1, y1, x2, y2 = torch.from_numpy(box)
    rows = (torch.arange(size_hw[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    columns = (torch.arange(size_hw[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    mask = torch.from_numpy(probabilities)
    sampled = F.grid_sample(mask[None, None], grid[None], mode="bilinear", align_corners=False)
    return sampled[0, 0].numpy()


@pytest.mark.parametrize("side", [1, 14, 28, 29])
@pytest.mark.parametrize(
    "box",
    [
        pytest.param((20.3, 10.6, 61.9, 47.2), id="inside"),
        pytest.param((20, 10, 62, 47), id="inside-on-the-pixel-grid"),
        pytest.param((0, 12.4, 33.3, 40.1), id="at-the-left"),
        pytest.param((55.5, 12.4, 90, 40.1), id="at-the-right"),
        pytest.param((20.7, 0, 61.9, 30.2), id="at-the-top"),
        pytest.param((20.7, 31.1, 61.9, 60), id="at-the-bottom"),
        pytest.param((0, 0, 90, 60), id="the-whole-image"),
        pytest.param((40.2, 5, 40.7, 55), id="thinner-than-a-pixel"),
        pytest.param((5, 30.45, 85, 30.55), id="flatter-than-a-pixel"),
        pytest.param((40.45, 30.45, 40.55, 30.55), id="smaller-than-a-pixel"),
        pytest.param((40, 30, 41, 31), id="one-pixel"),
        pytest.param((0, 0, 1, 1), id="the-first-pixel"),
        pytest.param((89, 59, 90, 60), id="the-last-pixel"),
        pytest.param((89.9, 59.9, 90, 60), id="tiny-in-the-last-corner"),
    ],
)
def test_pasted_mask_equals_sampling_of_the_whole_image(
    box: tuple[float, float, float, float], side: int
) -> None:
    corners = np.array(box, dtype=np.float32)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        probabilities = generator.random((side, side), dtype=np.float32)
        expected = paste_naively(probabilities, corners, SIZE_HW)
        pasted = paste_mask(probabilities, corners, SIZE_HW).full(SIZE_HW)
        # Rounding may decide only probabilities that are almost 0.5.
        assert (np.abs(expected[pasted != (expected >= 0.5)] - 0.5) < 1e-5).all()


@pytest.mark.parametrize(
    ("box", "size_hw"),
    [
        pytest.param((0, 0, 1, 1), (1, 1), id="image-of-one-pixel"),
        pytest.param((0, 0, 7, 3), (3, 7), id="the-whole-image"),
        pytest.param((2, 1, 5, 3), (3, 7), id="at-the-bottom"),
        pytest.param((1200, 600, 1260, 650), (720, 1280), id="larger-than-the-mask"),
    ],
)
def test_full_mask_fills_exactly_its_box(
    box: tuple[int, int, int, int], size_hw: tuple[int, int]
) -> None:
    x1, y1, x2, y2 = box
    expected = np.zeros(size_hw, dtype=np.bool_)
    expected[y1:y2, x1:x2] = True
    region = paste_mask(
        np.ones((28, 28), dtype=np.float32), np.array(box, dtype=np.float32), size_hw
    )
    np.testing.assert_array_equal(region.full(size_hw), expected)


@pytest.mark.parametrize(
    ("probability", "is_set"),
    [
        pytest.param(0.0, False, id="never"),
        pytest.param(np.nextafter(np.float32(0.5), np.float32(0)), False, id="just-under-half"),
        pytest.param(0.5, True, id="half"),
        pytest.param(1.0, True, id="always"),
    ],
)
def test_threshold_is_one_half(probability: float, is_set: bool) -> None:
    probabilities = np.full((1, 1), probability, dtype=np.float32)
    region = paste_mask(probabilities, np.array([4, 4, 5, 5], dtype=np.float32), (9, 9))
    assert bool(region.full((9, 9))[4, 4]) is is_set


def test_region_is_cropped_to_its_box() -> None:
    box = np.array([700.5, 300.5, 710.5, 320.5], dtype=np.float32)
    region = paste_mask(np.ones((28, 28), dtype=np.float32), box, (1000, 2000))
    assert region.pixels.shape[0] <= 24
    assert region.pixels.shape[1] <= 14


@pytest.mark.parametrize(
    ("x", "y"), [(0, 0), (5, 0), (0, 4), (5, 4)], ids=["top-left", "right", "bottom", "corner"]
)
def test_full_mask_of_a_region(x: int, y: int) -> None:
    pixels = np.array([[True, False, True], [False, True, True]])
    mask = MaskRegion(pixels, x, y).full((6, 8))
    assert mask.shape == (6, 8)
    assert mask.sum() == pixels.sum()
    np.testing.assert_array_equal(mask[y : y + 2, x : x + 3], pixels)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param([[0, 0], [0, 0]], [], id="no-label"),
        pytest.param([[7]], [7], id="a-pixel"),
        pytest.param([[5, 0, 2], [2, 5, 0]], [2, 5], id="ascending"),
        pytest.param([[3, 0, 0], [0, 0, 3]], [3], id="two-parts"),
    ],
)
def test_label_regions_are_the_pixels_of_each_label_above_zero(
    labels: list[list[int]], expected: list[int]
) -> None:
    given = np.array(labels, dtype=np.int32)
    found = dict(label_regions(given))
    assert list(found) == expected
    for label, region in found.items():
        size_hw = (len(labels), len(labels[0]))
        np.testing.assert_array_equal(region.full(size_hw), given == label)


def test_label_region_is_cropped_to_its_label() -> None:
    labels = np.zeros((50, 70), dtype=np.int32)
    labels[[10, 14], [20, 22]] = 1
    [(_, region)] = label_regions(labels)
    assert (region.y, region.x, region.pixels.shape) == (10, 20, (5, 3))
