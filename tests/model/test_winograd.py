"""Winograd convolutions equal direct ones, up to float32 rounding."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from d2serve.model import winograd as module
from d2serve.model.layers import Conv2d
from d2serve.model.packed_conv import PackedConv2d, pack
from d2serve.model.winograd import WinogradConv2d, is_eligible

CHANNELS = 16
# For sums of 144 products of about 0.1 in float32.
TOLERANCE = 1e-5
# The error of noise relative to that of a direct convolution in bfloat16; 7 for most seeds.
ERROR_RATIO = 12
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


def assert_near(output: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(output, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("step_bytes", [1, 6_000, 1 << 20])
@pytest.mark.parametrize("size_nhw", SIZES_NHW)
def test_the_result_equals_a_direct_convolution(
    size_nhw: tuple[int, int, int], step_bytes: int
) -> None:
    count, height, width = size_nhw
    convolution = Conv2d(CHANNELS, 24, 3, relu=True)
    features = random(count, CHANNELS, height, width).to(memory_format=torch.channels_last)
    with torch.inference_mode(), patch.object(module, "STEP_BYTES", step_bytes):
        output = WinogradConv2d(convolution)(features)
        expected = convolution.double()(features.double())
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("step_bytes", [1, 6_000, 1 << 20])
@pytest.mark.parametrize("size_nhw", SIZES_NHW)
def test_the_rounding_of_bfloat16_is_amplified_by_a_limited_factor(
    size_nhw: tuple[int, int, int], step_bytes: int
) -> None:
    count, height, width = size_nhw
    torch.manual_seed(0)
    convolution = Conv2d(CHANNELS, 24, 3, relu=True).bfloat16()
    features = random(count, CHANNELS, height, width).bfloat16()
    features = features.to(memory_format=torch.channels_last)
    with torch.inference_mode(), patch.object(module, "STEP_BYTES", step_bytes):
        outputs = WinogradConv2d(convolution)(features), convolution(features)
        expected = convolution.double()(features.double())
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    ours, direct = (float((output - expected).square().mean().sqrt()) for output in outputs)
    assert ours < ERROR_RATIO * direct


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(CHANNELS, 32, 3, padding=1),
        nn.Conv2d(CHANNELS, 32, 3, padding=1, bias=False),
        Conv2d(CHANNELS, 32, 3, norm="GN"),
        Conv2d(CHANNELS, 32, 3, norm="GN", relu=True),
    ],
)
def test_norm_and_bias_are_applied(convolution: nn.Conv2d) -> None:
    features = random(2, CHANNELS, 9, 11)
    with torch.inference_mode():
        assert_near(WinogradConv2d(convolution)(features), convolution(features))


def test_the_sum_with_a_shortcut_equals_a_direct_convolution() -> None:
    convolution = Conv2d(CHANNELS, CHANNELS, 3)
    features, shortcut = random(2, 1, CHANNELS, 9, 9)
    with torch.inference_mode():
        expected = convolution.add_relu(features, shortcut.clone())
        output = WinogradConv2d(convolution).add_relu(features, shortcut.clone())
    assert float(expected.min()) == 0 < float(expected.max())
    assert_near(output, expected)


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    convolution = WinogradConv2d(Conv2d(CHANNELS, CHANNELS, 3))
    features = random(5, CHANNELS, 14, 14)
    with torch.inference_mode():
        together = convolution(features)
        alone = torch.cat([convolution(each) for each in features.split(1)])
    assert_near(together, alone)


WIDE = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"in_channels": 32},
        {"out_channels": 32},
        {"in_channels": 128, "dtype": torch.bfloat16},
        {"dtype": torch.float16},
    ],
)
def test_only_wide_plain_3x3_convolutions_are_eligible(change: dict[str, object]) -> None:
    assert is_eligible(nn.Conv2d(**WIDE))  # type: ignore[arg-type]
    assert not is_eligible(nn.Conv2d(**{**WIDE, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize("has_matrix_unit", [False, True])
def test_bfloat16_is_eligible_unless_the_cpu_has_a_matrix_unit(
    has_matrix_unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_matrix_unit", lambda: has_matrix_unit)
    assert is_eligible(nn.Conv2d(**WIDE))  # type: ignore[arg-type]
    half = nn.Conv2d(**WIDE, dtype=torch.bfloat16)  # type: ignore[arg-type]
    assert is_eligible(half) is not has_matrix_unit


def test_packing_uses_winograd_for_eligible_convolutions() -> None:
    model = nn.Sequential(Conv2d(64, 64, 3), Conv2d(64, 32, 3))
    features = random(1, 64, 9, 11)
    with torch.inference_mode():
        expected = model(features)
        pack(model)
        assert_near(model(features), expected)
    assert [type(each) for each in model] == [WinogradConv2d, PackedConv2d]
    assert {type(each) for each in model[0].products} == {PackedConv2d}
