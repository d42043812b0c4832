"""RoIAlign and RoIPool on a CPU equal torchvision's."""

import pytest
import torch
import torchvision.ops
from torch import Tensor

from d2serve.model import poolers as module
from d2serve.model.poolers import roi_align, roi_pool

HEIGHT, WIDTH, SCALE = 40, 56, 0.25


def features() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 8, HEIGHT, WIDTH)


def regions() -> Tensor:
    """Usual regions, and regions beyond the borders, thin, empty or as large as the image."""
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
@pytest.mark.parametrize("max_regions", [7, 500])
def test_pooling_equals_torchvision(
    monkeypatch: pytest.MonkeyPatch, sampling_ratio: int, aligned: bool, side: int, max_regions: int
) -> None:
    monkeypatch.setattr(module, "MAX_REGIONS_CPU", max_regions)
    expected = torchvision.ops.roi_align(
        features(), regions(), side, SCALE, sampling_ratio, aligned
    )
    pooled = roi_align(features(), regions(), side, SCALE, sampling_ratio, aligned)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def test_the_memory_layout_does_not_change_the_result() -> None:
    expected = roi_align(features(), regions(), 7, SCALE, 0, True)
    channels_last = features().contiguous(memory_format=torch.channels_last)
    assert torch.equal(roi_align(channels_last, regions(), 7, SCALE, 0, True), expected)


def test_bfloat16_differs_from_float32_by_rounding() -> None:
    rounded = features().bfloat16()
    expected = roi_align(rounded.float(), regions(), 7, SCALE, 0, True)
    pooled = roi_align(rounded, regions(), 7, SCALE, 0, True)
    assert pooled.dtype is torch.bfloat16
    # Weights and sums are rounded to eight bits.
    torch.testing.assert_close(pooled.float(), expected, rtol=2**-8, atol=2**-7)


def test_no_regions_give_no_features() -> None:
    assert roi_align(features(), regions()[:0], 7, SCALE, 0, True).shape == (0, 8, 7, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maxima_equal_torchvisions(dtype: torch.dtype, layout: torch.memory_format) -> None:
    # Maxima of bfloat16 are exact.
    maps = features().to(dtype)
    expected = torchvision.ops.roi_pool(maps.float(), regions(), 7, SCALE)
    pooled = roi_pool(maps.to(memory_format=layout), regions(), 7, SCALE)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.float(), expected, rtol=0, atol=0)
