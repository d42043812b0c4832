"""Convolutions of 8-bit integers on a CPU, by oneDNN (VNNI or AMX).

Activations are unsigned with a scale and a zero point per tensor, x = scale * (q - zero_point);
weights are signed with a scale per output channel. torch's operators for them are private: `pack`
of `packed_conv` explains how that is dealt with, and `find_problem` does it here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d2serve.model.layers import Conv2d, norm_and_relu
from d2serve.model.packed_conv import FAILURES, SAMPLE_CHANNELS, waves

LARGEST, LARGEST_WEIGHT = 255, 127
# Larger batches have the layout of this one.
MAX_BATCH = 8
# Sizes of inputs whose layouts are remembered.
MAX_SHAPES = 256
SAMPLE_SIDE = 5


@dataclass(frozen=True)
class Quantization:
    """Real numbers as UInt8: x = scale * (q - zero_point), zero_point in 0..255."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Quantization":
        """The finest that represents 0, `low` and `high`."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / LARGEST, 1e-12)
        return cls(scale, round(-low / scale))

    def quantize(self, values: Tensor) -> Tensor:
        """Float[...] -> UInt8[...], rounded to nearest, ties to even, and clipped."""
        quantized = torch.quantize_per_tensor(
            values.float(), self.scale, self.zero_point, torch.quint8
        )
        return quantized.int_repr()

    def dequantize(self, quantized: Tensor, dtype: torch.dtype) -> Tensor:
        """UInt8[...] -> `dtype`[...]."""
        return quantized.to(dtype).sub_(self.zero_point).mul_(self.scale)

    def as_integers(self, values: Tensor) -> Tensor:
        """Quantize Float; UInt8 stays."""
        return values if values.dtype == torch.uint8 else self.quantize(values)

    def as_float(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Dequantize UInt8; Float stays."""
        return self.dequantize(values, dtype) if values.dtype == torch.uint8 else values


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Float[out, ...] -> Int8[out, ...] in -127..127 and scales Float32[out]."""
    rows = weight.float().flatten(1)
    scales = (rows.abs().amax(dim=1) / LARGEST_WEIGHT).clamp(min=1e-12)
    quantized = (rows / scales[:, None]).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    return quantized.to(torch.int8).view(weight.shape), scales


class Int8Conv2d(nn.Module):
    """Replaces a convolution without a norm.

    Args:
        convolution: with its ReLU, if any.
        source: of its input.
        target: of its output; None for an output in `dtype`.
        dtype: bfloat16 or float32.
        operators: torch's private operators.
    """

    def __init__(
        self,
        convolution: nn.Module,
        source: Quantization,
        target: Quantization | None,
        dtype: torch.dtype = torch.float32,
        operators: Any = torch.ops.onednn,
    ) -> None:
        super().__init__()
        assert isinstance(convolution, nn.Conv2d)
        norm, relu = norm_and_relu(convolution)
        assert norm is None, "norms are folded first"
        self.source, self.target, self.operators = source, target, operators
        self.activation = "relu" if relu else "none"
        result = target or Quantization(1.0, 0)
        self.output = (result.scale, result.zero_point, torch.uint8 if target else dtype)
        self.geometry = (
            list(convolution.stride),
            list(map(int, convolution.padding)),
            list(convolution.dilation),
            convolution.groups,
        )
        quantized, self.scales = quantize_weight(convolution.weight.detach())
        self.zero_points = torch.zeros(len(self.scales), dtype=torch.int64)
        # Plain attributes: a tensor in oneDNN's layout cannot be saved, moved or converted.
        self.weight = quantized.contiguous()
        self._by_shape: dict[tuple[int, ...], Tensor] = {}
        self._by_layout: dict[bytes, Tensor] = {}
        self.bias = None if convolution.bias is None else convolution.bias.detach().float()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """UInt8 or Float[N, in_channels, H, W] -> UInt8 or Float[N, out_channels, H', W']."""
        output: Tensor = self.operators.qconv2d_pointwise(
            *self._arguments(input),
            self.bias,
            *self.geometry,
            *self.output,
            self.activation,
            [],
            "",
        )
        return output

    def add(
        self,
        input: Tensor,  # noqa: A002, torch names it so
        other: Tensor,
        quantization: Quantization,
        activation: str = "none",
    ) -> Tensor:
        """UInt8[N, out_channels, H', W']: the output plus `other` in `quantization`, which is
        overwritten, and then `relu` or `none`."""
        output: Tensor = self.operators.qconv2d_pointwise.binary(
            *self._arguments(input),
            other,
            self.bias,
            *self.geometry,
            *self.output,
            quantization.scale,
            quantization.zero_point,
            "sum",
            1.0,
            activation,
            [],
            "",
        )
        return output

    def _arguments(self, input: Tensor) -> tuple[Any, ...]:  # noqa: A002, torch names it so
        source = self.source
        quantized = source.as_integers(input)
        weight = self._packed(quantized)
        return quantized, source.scale, source.zero_point, weight, self.scales, self.zero_points

    def _packed(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """The weights in oneDNN's layout for the size of this input. There are two or three; in
        another one they would be rearranged in every call, which takes longer than the layer."""
        count, *rest = input.shape
        shape = (min(count, MAX_BATCH), *rest)
        if shape not in self._by_shape:
            source = (self.source.scale, self.source.zero_point)
            packed = self.operators.qconv_prepack(
                self.weight, self.scales, *source, *self.geometry, list(shape)
            )
            layout = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy())
            if len(self._by_shape) >= MAX_SHAPES:
                self._by_shape.clear()
            self._by_shape[shape] = self._by_layout.setdefault(layout, packed)
        return self._by_shape[shape]


def find_problem(operators: Any = torch.ops.onednn) -> str:
    """Compare a layer with exact arithmetic on the largest values; CPUs without VNNI saturate.

    Returns:
        Why the operators are not usable; empty if they are.
    """
    # The range of the outputs, without clipping.
    source, target = Quantization(0.5, 3), Quantization(160.0, 128)
    plain = _sample_layer()
    # Waves reach all integers from 0 to 255.
    pixels = ((waves(2, SAMPLE_CHANNELS, SAMPLE_SIDE, SAMPLE_SIDE) + 1) * 127.5).round()
    features = pixels.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    features[0] = LARGEST
    other = features.roll(1, dims=1).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            layer = Int8Conv2d(plain, source, target, operators=operators)
            found = (layer(features), layer.add(features, other.clone(), target, "relu"))
            expected = reference(plain, features, source)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
    summed = (expected + target.dequantize(other, torch.float64)).relu()
    for result, exact in zip(found, (expected, summed), strict=True):
        steps = (exact / target.scale + target.zero_point).clamp(0, LARGEST)
        # Of a rounding in single precision.
        if result.dtype != torch.uint8 or float((result - steps).abs().max()) > 0.51:
            return "the result for a sample is wrong; the CPU has neither VNNI nor AMX"
    return ""


def reference(convolution: nn.Conv2d, features: Tensor, source: Quantization) -> Tensor:
    """Float64[N, out, H', W']: the convolution of UInt8[N, in, H, W] in `source` with quantized
    weights, without an activation and without rounding of the output."""
    quantized, scales = quantize_weight(convolution.weight.detach())
    weight = quantized.double() * scales.double()[:, None, None, None]
    bias = None if convolution.bias is None else convolution.bias.detach().double()
    return torch.nn.functional.conv2d(
        source.dequantize(features, torch.float64),
        weight,
        bias,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )


def _sample_layer() -> Conv2d:
    with torch.device("meta"):  # avoids random initialization
        layer = Conv2d(SAMPLE_CHANNELS, SAMPLE_CHANNELS, 3)
    weight = waves(*layer.weight.shape)
    weight[0] = 1.0
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(waves(SAMPLE_CHANNELS), requires_grad=False)
    return layer
