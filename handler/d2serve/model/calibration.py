"""Calibration of 8-bit integers: the ranges of activations, from sample images."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from d2serve.model.int8_conv import Quantization

# Values that are kept of each tensor of an image, to choose where to clip.
SAMPLES = 4096
# Parts of the range that are tried: the one with the smallest mean squared error is chosen.
FRACTIONS = tuple(step / 50 for step in range(15, 51))


@dataclass(frozen=True)
class Calibration:
    """Ranges of activations, and the parts that lose too much in 8-bit integers.

    Attributes:
        inputs, outputs: of modules, by name. The input of a convolution `fpn_output` is the sum of
            the top-down path.
        kept: names of the parts that stay in the network's number type.
        largest_error: of the parts alone, relative to their output.
    """

    inputs: Mapping[str, Quantization]
    outputs: Mapping[str, Quantization]
    kept: frozenset[str] = frozenset()
    largest_error: float = 0.0


class Observer:
    """The range of a tensor over several images, and samples of its values."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._samples: list[Tensor] = []

    def observe(self, values: Tensor) -> None:
        """Record Float[...]; every n-th value is a sample."""
        low, high = values.aminmax()
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        flat = values.permute(0, 2, 3, 1).flatten() if values.ndim == 4 else values.flatten()
        # An odd step visits all channels.
        step = max(1, flat.numel() // SAMPLES) | 1
        self._samples.append(flat[::step].float().clone())

    def choose(self, clip: bool = True) -> Quantization:
        """The quantization with the smallest mean squared error, or of the whole range."""
        whole = Quantization.of_range(self._low, self._high)
        if not clip or not self._samples:
            return whole
        samples = torch.cat(self._samples)
        tried = [Quantization.of_range(self._low * part, self._high * part) for part in FRACTIONS]
        return min(tried, key=lambda each: mean_squared_error(each, samples))


def mean_squared_error(quantization: Quantization, values: Tensor) -> float:
    """Of Float32[...] after quantization."""
    restored = quantization.dequantize(quantization.quantize(values), torch.float32)
    return float((restored - values).square().mean())
