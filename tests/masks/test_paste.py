import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from d2serve.masks.paste import MaskRegion, paste_mask

SIZE_HW = (60, 90)


def naive_paste(
    probabilities: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Detectron2's way: every pixel of the picture looks its probability up in the mask."""
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
        pytest.param((0, 0, 90, 60), id="the-whole-picture"),
        pytest.param((40.2, 5, 40.7, 55), id="thinner-than-a-pixel"),
        pytest.param((5, 30.45, 85, 30.55), id="flatter-than-a-pixel"),
        pytest.param((40.45, 30.45, 40.55, 30.55), id="smaller-than-a-pixel"),
        pytest.param((40, 30, 41, 31), id="one-pixel"),
        pytest.param((0, 0, 1, 1), id="the-first-pixel"),
        pytest.param((89, 59, 90, 60), id="the-last-pixel"),
        pytest.param((89.9, 59.9, 90, 60), id="a-crumb-in-the-last-corner"),
    ],
)
def test_a_pasted_mask_equals_a_sampling_of_the_whole_picture(
    box: tuple[float, float, float, float], side: int
) -> None:
    corners = np.array(box, dtype=np.float32)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        probabilities = generator.random((side, side), dtype=np.float32)
        expected = naive_paste(probabilities, corners, SIZE_HW)
        pasted = paste_mask(probabilities, corners, SIZE_HW).full(SIZE_HW)
        # Only a probability that is 0.5 but for rounding may fall either way.
        assert (np.abs(expected[pasted != (expected >= 0.5)] - 0.5) < 1e-5).all()


@pytest.mark.parametrize(
    ("box", "size_hw"),
    [
        pytest.param((0, 0, 1, 1), (1, 1), id="a-picture-of-one-pixel"),
        pytest.param((0, 0, 7, 3), (3, 7), id="the-whole-picture"),
        pytest.param((2, 1, 5, 3), (3, 7), id="at-the-bottom"),
        pytest.param((1200, 600, 1260, 650), (720, 1280), id="larger-than-the-mask"),
    ],
)
def test_a_full_mask_fills_exactly_the_pixels_of_its_box(
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
def test_a_probability_of_half_is_set(probability: float, is_set: bool) -> None:
    probabilities = np.full((1, 1), probability, dtype=np.float32)
    region = paste_mask(probabilities, np.array([4, 4, 5, 5], dtype=np.float32), (9, 9))
    assert bool(region.full((9, 9))[4, 4]) is is_set


def test_a_region_is_no_larger_than_its_box_needs() -> None:
    box = np.array([700.5, 300.5, 710.5, 320.5], dtype=np.float32)
    region = paste_mask(np.ones((28, 28), dtype=np.float32), box, (1000, 2000))
    assert region.pixels.shape[0] <= 24
    assert region.pixels.shape[1] <= 14


@pytest.mark.parametrize(
    ("x", "y"), [(0, 0), (5, 0), (0, 4), (5, 4)], ids=["top-left", "right", "bottom", "corner"]
)
def test_full_puts_the_region_at_its_place(x: int, y: int) -> None:
    pixels = np.array([[True, False, True], [False, True, True]])
    mask = MaskRegion(pixels, x, y).full((6, 8))
    assert mask.shape == (6, 8)
    assert mask.sum() == pixels.sum()
    np.testing.assert_array_equal(mask[y : y + 2, x : x + 3], pixels)
