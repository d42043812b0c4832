"""Winograd's convolutions compute what direct ones do, up to the rounding of float32."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from d2serve.model import winograd as tiles
from d2serve.model.layers import Conv2d
from d2serve.model.packed_conv import PackedConv2d, pack
from d2serve.model.winograd import WinogradConv2d, pays

CHANNELS = 16
# Of values of about 1, whose sums have 144 terms.
TOLERANCE = 1e-4
SIZES_NHW = [
    (1, 1, 1),
    (1, 3, 2),
    (2, 4, 4),
    (1, 5, 9),
    (3, 13, 17),
    (7, 14, 14),
    (1, 40, 70),
]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tiles_at_once", [1, 12, 256])
@pytest.mark.parametrize("size_nhw", SIZES_NHW)
def test_it_is_the_direct_convolution(size_nhw: tuple[int, int, int], tiles_at_once: int) -> None:
    count, height, width = size_nhw
    convolution = Conv2d(CHANNELS, 24, 3, relu=True).double()
    features = random(count, CHANNELS, height, width).to(memory_format=torch.channels_last)
    with torch.inference_mode(), patch.object(tiles, "TILES_AT_ONCE", tiles_at_once):
        expected = convolution(features.double()).float()
        found = WinogradConv2d(convolution.float())(features)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_near(found, expected)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(CHANNELS, 32, 3, padding=1),
        nn.Conv2d(CHANNELS, 32, 3, padding=1, bias=False),
        Conv2d(CHANNELS, 32, 3, norm="GN"),
        Conv2d(CHANNELS, 32, 3, norm="GN", relu=True),
    ],
)
def test_norm_and_bias_are_kept(convolution: nn.Conv2d) -> None:
    features = random(2, CHANNELS, 9, 11)
    with torch.inference_mode():
        assert_near(WinogradConv2d(convolution)(features), convolution(features))


def test_the_sum_with_a_shortcut() -> None:
    convolution = Conv2d(CHANNELS, CHANNELS, 3)
    features, shortcut = random(2, 1, CHANNELS, 9, 9)
    with torch.inference_mode():
        expected = convolution.add_relu(features, shortcut.clone())
        found = WinogradConv2d(convolution).add_relu(features, shortcut.clone())
    assert float(expected.min()) == 0 < float(expected.max())
    assert_near(found, expected)


def test_pictures_beside_it_leave_a_picture_as_it_is() -> None:
    convolution = WinogradConv2d(Conv2d(CHANNELS, CHANNELS, 3))
    features = random(5, CHANNELS, 14, 14)
    with torch.inference_mode():
        together = convolution(features)
        alone = torch.cat([convolution(each) for each in features.split(1)])
    assert_near(together, alone)


WIDE = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"in_channels": 128},
        {"out_channels": 128},
        {"dtype": torch.bfloat16},
    ],
)
def test_it_is_for_wide_plain_3x3_convolutions(other: dict[str, object]) -> None:
    assert pays(nn.Conv2d(**WIDE))  # type: ignore[arg-type]
    assert not pays(nn.Conv2d(**{**WIDE, **other}))  # type: ignore[arg-type]


def test_packing_takes_it_where_it_pays() -> None:
    model = nn.Sequential(Conv2d(256, 256, 3), Conv2d(256, 64, 3))
    pack(model)
    assert [type(module) for module in model] == [WinogradConv2d, PackedConv2d]
