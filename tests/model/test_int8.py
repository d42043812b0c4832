"""Quantized layers and networks beside float ones."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from d2serve.errors import ConfigError
from d2serve.model import int8, int8_conv
from d2serve.model.calibration import Calibration, Observer, mean_squared_error
from d2serve.model.int8_backbone import FloatUnit, Int8FPN
from d2serve.model.int8_conv import Int8Conv2d, Quantization, find_problem, quantize_weight
from d2serve.model.layers import Conv2d
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from tests.cpu import needs_int8
from tests.goldens.cases import TINY

BY_NAME = {golden.name: golden for golden in TINY}
SIZE_HW = (96, 128)
SOURCE, SUMMAND = Quantization(0.02, 7), Quantization(0.03, 120)

pytestmark = needs_int8


def test_quantization_rounds_to_nearest_even_and_clips() -> None:
    values = torch.tensor([-9.0, -0.25, 0.0, 0.25, 0.75, 1.0, 1e9])
    quantization = Quantization(0.5, 2)
    expected = torch.tensor([0, 2, 2, 2, 4, 4, 255], dtype=torch.uint8)
    assert torch.equal(quantization.quantize(values), expected)
    restored = quantization.dequantize(expected, torch.float32)
    assert torch.equal(restored, torch.tensor([-1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 126.5]))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_a_range_always_contains_zero_exactly(low: float, high: float) -> None:
    quantization = Quantization.of_range(low, high)
    ends = torch.tensor([low, 0.0, high])
    restored = quantization.dequantize(quantization.quantize(ends), torch.float32)
    assert restored[1] == 0
    torch.testing.assert_close(restored, ends, atol=quantization.scale, rtol=0)


def test_weights_have_a_scale_per_output_channel() -> None:
    weight = torch.tensor([[1.0, -0.5], [0.001, 0.002], [0.0, 0.0]])[:, :, None, None]
    quantized, scales = quantize_weight(weight)
    assert quantized.flatten(1).tolist() == [[127, -64], [64, 127], [0, 0]]
    torch.testing.assert_close(scales[:2] * 127, torch.tensor([1.0, 0.002]))


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(16, 32, 3, stride=2, relu=True),
        Conv2d(16, 32, 1),
        Conv2d(32, 32, 3, groups=4, dilation=2),
        Conv2d(3, 16, 7, stride=2, relu=True),
    ],
    ids=["3x3", "1x1", "grouped", "stem"],
)
def test_a_layer_rounds_the_exact_result_once(layer: Conv2d) -> None:
    torch.manual_seed(0)
    features = channels_last(torch.randint(0, 256, (2, layer.in_channels, 13, 17)))
    exact = int8_conv.reference(layer, features, SOURCE)
    exact = exact.relu() if layer.relu else exact
    target = Quantization.of_range(float(exact.min()), float(exact.max()))
    with torch.inference_mode():
        integers = Int8Conv2d(layer, SOURCE, target)(features)
        floats = Int8Conv2d(layer, SOURCE, None)(features)
    steps = (exact / target.scale + target.zero_point).clamp(0, 255)
    assert float((integers - steps).abs().max()) < 0.501
    assert len(integers.unique()) > 100
    torch.testing.assert_close(floats, exact.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_a_sum_is_rounded_once(activation: str) -> None:
    torch.manual_seed(1)
    layer, target = Conv2d(16, 32, 1), Quantization(0.05, 100)
    features = channels_last(torch.randint(0, 256, (1, 16, 9, 11)))
    other = channels_last(torch.randint(0, 256, (1, 32, 9, 11)))
    exact = int8_conv.reference(layer, features, SOURCE)
    exact = exact + SUMMAND.dequantize(other, torch.float64)
    exact = exact.relu() if activation == "relu" else exact
    with torch.inference_mode():
        found = Int8Conv2d(layer, SOURCE, target).add(features, other.clone(), SUMMAND, activation)
    steps = (exact / target.scale + target.zero_point).clamp(0, 255)
    assert float((found - steps).abs().max()) < 0.501


def test_operators_that_are_missing_or_wrong_are_found() -> None:
    assert find_problem() == ""
    assert "AttributeError" in find_problem(SimpleNamespace())
    real = torch.ops.onednn

    def saturating(*arguments: object) -> Tensor:
        return real.qconv2d_pointwise(*arguments).clamp(max=200)

    saturating.binary = real.qconv2d_pointwise.binary  # type: ignore[attr-defined]
    operators = SimpleNamespace(qconv_prepack=real.qconv_prepack, qconv2d_pointwise=saturating)
    assert "neither VNNI nor AMX" in find_problem(operators)


def test_calibration_clips_rare_values() -> None:
    observer = Observer()
    values = torch.randn(4001, generator=torch.Generator().manual_seed(0)) ** 5
    observer.observe(values)
    chosen, whole = observer.choose(), observer.choose(clip=False)
    low, high = float(values.min()), float(values.max())
    half = Quantization.of_range(low / 2, high / 2)
    assert whole == Quantization.of_range(low, high)
    assert half.scale < chosen.scale <= whole.scale
    error = mean_squared_error(chosen, values)
    assert error <= min(mean_squared_error(each, values) for each in (half, whole))


def test_rare_values_are_clipped_where_most_are_small() -> None:
    observer = Observer()
    # Of a million values, the samples are every 245th.
    values = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    values[1] = 3.0
    observer.observe(values)
    assert observer.choose(clip=False).scale == pytest.approx(3 / 255)
    assert observer.choose().scale == pytest.approx(1 / 255, rel=0.05)


def test_weights_are_laid_out_once_for_each_layout() -> None:
    layer = Int8Conv2d(Conv2d(64, 64, 1), SOURCE, SUMMAND)
    with torch.inference_mode():
        for side in (3, 30, 31, 32):
            for _ in range(2):
                layer(channels_last(torch.zeros(1, 64, side, side)))
    assert len(layer._by_shape) == 4
    assert len(layer._by_layout) < 4


@pytest.fixture(scope="module")
def calibrated() -> tuple[Network, Calibration]:
    network = optimize(BY_NAME["mask_rcnn_r50"].build()).eval()
    return network, int8.calibrate(network, runs_of(network))


def test_a_quantized_backbone_is_close_to_the_float_one(
    calibrated: tuple[Network, Calibration],
) -> None:
    network, found = calibrated
    images = network._to_batch([noise(2)])
    with torch.inference_mode():
        expected = network.backbone(images)
        levels = quantized(network, found).backbone(images)
    assert levels.keys() == expected.keys()
    for name, level in levels.items():
        assert 0.0 < relative_error(level, expected[name]) < 0.15, name


def test_parts_with_a_large_error_are_kept(calibrated: tuple[Network, Calibration]) -> None:
    network, found = calibrated
    parts = {"backbone.bottom_up.res3.0", "backbone.fpn_lateral3", "backbone.fpn_output2"}
    kept = Calibration(found.inputs, found.outputs, frozenset(parts))
    model = quantized(network, kept)
    assert isinstance(model.backbone, Int8FPN)
    floats = [name for name, each in model.named_modules() if isinstance(each, FloatUnit)]
    laterals = [f"backbone.laterals.{level}" for level in (2, 3, 4, 5)]
    assert set(floats) == {"backbone.bottom_up.res3.0", "backbone.outputs.2", *laterals}
    images = network._to_batch([noise(3)])
    with torch.inference_mode():
        expected, levels = network.backbone(images), model.backbone(images)
    for name, level in levels.items():
        assert 0.0 < relative_error(level, expected[name]) < 0.15, name


def test_errors_decide_what_is_kept(
    calibrated: tuple[Network, Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, found = calibrated
    errors = int8.find_errors(network, found, runs_of(network))
    assert 0.0 < max(errors.values()) <= int8.MAX_ERROR
    largest = max(errors, key=errors.__getitem__)
    monkeypatch.setattr(int8, "MAX_ERROR", errors[largest] - 1e-6)
    assert int8.calibrate(network, runs_of(network)).kept == {largest}


@pytest.mark.parametrize(
    "name", ["keypoint_rcnn", "retinanet", "panoptic_fpn", "mask_rcnn_r34_conv_heads"]
)
def test_families_run_in_integers(name: str) -> None:
    network = optimize(BY_NAME[name].build()).eval()
    model = quantized(network, int8.calibrate(network, runs_of(network)))
    layers = [each for each in model.modules() if isinstance(each, Int8Conv2d)]
    assert len(layers) > 40
    [output] = model([noise(1)], [SIZE_HW])
    assert bool(output.instances.scores.isfinite().all())


def test_other_backbones_are_rejected() -> None:
    network = optimize(BY_NAME["mask_rcnn_c4"].build()).eval()
    with pytest.raises(ConfigError, match=r"is for a ResNet with FPN.*is a ResNet; use bf16"):
        int8.calibrate(network, runs_of(network))


def test_the_calibration_of_another_network_is_rejected(
    calibrated: tuple[Network, Calibration],
) -> None:
    network, found = calibrated
    with pytest.raises(ConfigError, match=r"no entry .*stem.* --precision int8"):
        quantized(network, Calibration(found.inputs, {}, found.kept))


def quantized(network: Network, found: Calibration) -> Network:
    model = deepcopy(network)
    int8.quantize(model, found, torch.float32)
    return model


def runs_of(network: Network) -> list[Callable[[], object]]:
    return [partial(network, [noise(seed)], [SIZE_HW]) for seed in (0, 1)]


def noise(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *SIZE_HW), generator=generator, dtype=torch.uint8)


def channels_last(values: Tensor) -> Tensor:
    return values.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
