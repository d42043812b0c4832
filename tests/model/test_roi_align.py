"""Our RoIAlign on the CPU against torchvision's."""

import pytest
import torch
import torchvision.ops
from torch import Tensor

from d2serve.model import poolers as module
from d2serve.model.poolers import roi_align

HEIGHT, WIDTH, SCALE = 40, 56, 0.25


def features() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 8, HEIGHT, WIDTH)


def regions() -> Tensor:
    """Usual ones, and those at and beyond the borders, thin, empty and as large as the picture."""
    torch.manual_seed(1)
    corners = torch.rand(40, 2) * torch.tensor([WIDTH, HEIGHT]) / SCALE * 0.8
    usual = torch.cat((corners, corners + torch.rand(40, 2) * 120), dim=1)
    height, width = HEIGHT / SCALE, WIDTH / SCALE
    special = torch.tensor(
        [
            [0, 0, width, height],
            [0, 0, width, 1.5],
            [7, 0, 7.5, height],
            [10, 10, 10, 10],
            [-30, -20, 15, 12],
            [width - 3, height - 2, width + 60, height + 40],
            [width + 20, height + 20, width + 60, height + 60],
            [3.9, 4.1, 32, 32],
        ]
    )
    boxes = torch.cat((usual, special))
    images = torch.arange(len(boxes)) % 2
    return torch.cat((images[:, None].float(), boxes), dim=1)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("side", [1, 7, 14])
@pytest.mark.parametrize("at_once", [7, 500])
def test_pools_as_torchvision_does(
    monkeypatch: pytest.MonkeyPatch, sampling_ratio: int, aligned: bool, side: int, at_once: int
) -> None:
    monkeypatch.setattr(module, "REGIONS_AT_ONCE", at_once)
    expected = torchvision.ops.roi_align(
        features(), regions(), side, SCALE, sampling_ratio, aligned
    )
    found = roi_align(features(), regions(), side, SCALE, sampling_ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_layout_in_memory_makes_no_difference() -> None:
    expected = roi_align(features(), regions(), 7, SCALE, 0, True)
    laid_out = features().contiguous(memory_format=torch.channels_last)
    assert torch.equal(roi_align(laid_out, regions(), 7, SCALE, 0, True), expected)


def test_bfloat16_is_float32_rounded() -> None:
    rounded = features().bfloat16()
    expected = roi_align(rounded.float(), regions(), 7, SCALE, 0, True)
    found = roi_align(rounded, regions(), 7, SCALE, 0, True)
    assert found.dtype is torch.bfloat16
    # Weights and sums are rounded to eight bits.
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=2**-7)


def test_no_regions_no_pooled_ones() -> None:
    assert roi_align(features(), regions()[:0], 7, SCALE, 0, True).shape == (0, 8, 7, 7)
