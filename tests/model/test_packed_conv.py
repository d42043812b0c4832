"""Packed convolutions equal plain ones."""

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from d2serve.model import winograd
from d2serve.model.layers import Conv2d, Deconv2x2, FullyConnectedConv2d
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import (
    PackedConv2d,
    PackedDeconv2x2,
    PackedLinear,
    find_problem,
    pack,
)
from d2serve.model.winograd import WinogradConv2d
from tests.goldens.cases import TINY

BY_NAME = {golden.name: golden for golden in TINY}
SIZE_HW = (120, 160)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "convolution",
    [
        Conv2d(32, 64, 3, stride=2, relu=True),
        Conv2d(32, 32, 3, groups=8, dilation=2),
        Conv2d(32, 64, 3, norm="GN", relu=True),
        nn.Conv2d(32, 8, 1),
    ],
)
def test_a_packed_convolution_equals_the_plain_one(
    convolution: nn.Conv2d, dtype: torch.dtype
) -> None:
    features = torch.randn(2, 32, 13, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = features.to(memory_format=torch.channels_last)
    convolution.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        torch.testing.assert_close(PackedConv2d(convolution)(features), convolution(features))


@pytest.mark.parametrize("norm", ["", "GN"])
def test_the_sum_with_a_shortcut_equals_the_plain_one(norm: str) -> None:
    convolution = Conv2d(32, 32, 3, norm=norm)
    features, shortcut = torch.randn(2, 1, 32, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = convolution.add_relu(features, shortcut.clone())
        found = PackedConv2d(convolution).add_relu(features, shortcut.clone())
    assert float(expected.min()) == 0 < float(expected.max())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("plain", "packed_as"),
    [
        (FullyConnectedConv2d(32, 48, 7), PackedLinear),
        (FullyConnectedConv2d(32, 48, 7, bias=False), PackedLinear),
        (Deconv2x2(32, 12), PackedDeconv2x2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_packed_layers_of_regions_equal_the_plain_ones(
    plain: nn.Module, packed_as: type[nn.Module], dtype: torch.dtype, count: int
) -> None:
    regions = torch.randn(count, 32, 7, 7, generator=torch.Generator().manual_seed(3)).to(dtype)
    regions = regions.to(memory_format=torch.channels_last)
    plain = deepcopy(plain).to(dtype)
    model = nn.Sequential(plain)
    with torch.inference_mode():
        expected = plain(regions)
        pack(model)
        assert isinstance(model[0], packed_as)
        torch.testing.assert_close(model(regions), expected)


@pytest.mark.parametrize("packed_as", [PackedConv2d, WinogradConv2d])
@pytest.mark.parametrize("name", ["mask_rcnn_r50", "faster_rcnn_r18_avg_rgb", "mask_rcnn_c4"])
def test_a_packed_network_detects_the_same(
    name: str, packed_as: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The channels of these networks are few.
    least = 1 if packed_as is WinogradConv2d else 10_000
    monkeypatch.setattr(winograd, "MIN_CHANNELS", dict.fromkeys(winograd.MIN_CHANNELS, least))
    pixels = torch.randint(
        0, 256, (3, *SIZE_HW), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    model = optimize(BY_NAME[name].build())
    [expected] = model([pixels], [SIZE_HW])
    pack(model)
    assert any(isinstance(module, packed_as) for module in model.modules())
    [found] = model([pixels], [SIZE_HW])
    assert len(expected.instances) > 0
    torch.testing.assert_close(found.instances.boxes, expected.instances.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.instances.scores, expected.instances.scores, rtol=0, atol=1e-5)


def test_packing_does_not_keep_a_second_copy_of_the_weights() -> None:
    model = optimize(BY_NAME["mask_rcnn_r50"].build())
    before = sum(values.numel() for values in model.parameters())
    pack(model)
    assert sum(values.numel() for values in model.parameters()) < 0.2 * before


def test_packing_twice_changes_nothing() -> None:
    model = optimize(BY_NAME["mask_rcnn_r50"].build())
    pack(model)
    once = list(model.modules())
    pack(model)
    assert list(model.modules()) == once


class Hidden:
    """torch's operators, except one that is missing or another function."""

    def __init__(self, name: str, replacement: Callable[..., object] | None) -> None:
        self.name = name
        self.replacement = replacement

    def __getattr__(self, name: str) -> object:
        if name != self.name:
            return getattr(torch.ops.mkldnn, name)
        if self.replacement is None:
            raise AttributeError(f"no {name}")
        return self.replacement


def with_other_arguments(*, features: torch.Tensor) -> torch.Tensor:
    return features


def with_another_result(features: torch.Tensor, *_: object) -> torch.Tensor:
    return features


CONVOLUTION = (
    "_reorder_convolution_weight",
    "_convolution_pointwise",
    "_convolution_pointwise_",
)
LINEAR = ("_reorder_linear_weight", "_linear_pointwise")


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        *((name, other) for name in CONVOLUTION + LINEAR for other in (None, with_other_arguments)),
        ("_convolution_pointwise", with_another_result),
        ("_linear_pointwise", with_another_result),
    ],
)
def test_layers_stay_plain_without_one_of_their_operators(
    name: str, replacement: Callable[..., object] | None, caplog: pytest.LogCaptureFixture
) -> None:
    layers = [Conv2d(16, 16, 3), Conv2d(16, 16, 1), FullyConnectedConv2d(16, 16, 5)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.randn(1, 16, 5, 5, generator=torch.Generator().manual_seed(4))
    features = features.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = model(features)
        pack(model, Hidden(name, replacement))
        torch.testing.assert_close(model(features), expected)
    packed_as = [PackedConv2d, PackedConv2d, PackedLinear]
    kept = PackedConv2d if name in CONVOLUTION else PackedLinear
    for layer, plain, packed in zip(model, layers, packed_as, strict=True):
        assert layer is plain if packed is kept else isinstance(layer, packed)
    [record] = caplog.records
    assert f"oneDNN: {kept.__name__} in torch.float32 is not usable: " in record.getMessage()


def test_a_network_without_any_operators_computes_exactly_the_plain_results(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pixels = torch.randint(
        0, 256, (3, *SIZE_HW), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    model = optimize(BY_NAME["mask_rcnn_r50"].build())
    [expected] = model([pixels], [SIZE_HW])
    before = list(model.modules())
    pack(model, SimpleNamespace())
    assert list(model.modules()) == before
    [found] = model([pixels], [SIZE_HW])
    assert len(found.instances) > 0
    assert torch.equal(found.instances.boxes, expected.instances.boxes)
    assert torch.equal(found.instances.scores, expected.instances.scores)
    assert len(caplog.records) == 3  # one for each kind of layer


def test_checking_the_operators_uses_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert find_problem(PackedConv2d, torch.float32, torch.ops.mkldnn) == ""
    assert torch.equal(torch.get_rng_state(), before)
