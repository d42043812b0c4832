"""Convolutions and products with weights in oneDNN's packed CPU layouts.

torch's operators for these layouts are private: other versions may lack them or change their
arguments. Each kind of layer is therefore compared with the plain one before it is used.
"""

import logging
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import (
    Conv2d,
    Deconv2x2,
    FullyConnectedConv2d,
    apply_norm,
    flatten_rows,
    norm_and_relu,
    split_cells,
)
from d2serve.model.linear import FullPrecisionLinear, Linear
from d2serve.model.packed_rows import PackedRows
from d2serve.model.packed_stem import PackedStem, without_row_padding
from d2serve.model.resnet import Stem
from d2serve.model.winograd import STEP_HW, WinogradConv2d, is_eligible

logger = logging.getLogger(__name__)
# Missing operators, other arguments, and types that this CPU does not support.
FAILURES = (AttributeError, RuntimeError, TypeError, ValueError)
SAMPLE_CHANNELS, SAMPLE_SIDE = 16, 5
# Of the largest output value; bfloat16 rounds to 1/256.
TOLERANCE = 0.02


def pack(model: nn.Module, operators: Any = torch.ops.mkldnn) -> None:
    """Replace a CPU network's convolutions by packed ones, in place, if torch has oneDNN.

    Convolutions that are packed already stay, and so do those whose operators are not usable.

    Args:
        model: the network.
        operators: torch's private operators for oneDNN's layouts.
    """
    if not torch.backends.mkldnn.is_available():
        return
    packer = _Packer(operators)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            packed = packer.pack(child)
            if packed is not None:
                module.add_module(name, packed)


class _Packer:
    """Packs layers; the operators of each kind of layer are checked once in each type."""

    def __init__(self, operators: Any) -> None:
        self._operators = operators
        self._usable: dict[tuple[_Packed, torch.dtype], bool] = {}

    def pack(self, layer: nn.Module) -> nn.Module | None:
        """Return the layer that replaces this one, or None if it stays."""
        if isinstance(layer, FullyConnectedConv2d):
            return self._pack(PackedLinear, layer, layer.weight.dtype)
        if isinstance(layer, Linear) and type(layer) in (Linear, FullPrecisionLinear):
            return self._pack(PackedRows, layer, layer.weight.dtype)
        if isinstance(layer, Stem) and layer.conv1.norm is None:
            return self._pack_stem(layer.conv1)
        if isinstance(layer, Deconv2x2):
            return self._pack(PackedDeconv2x2, layer, layer.weight.dtype)
        # Other subclasses read their weights themselves.
        if isinstance(layer, nn.Conv2d) and type(layer) in (Conv2d, nn.Conv2d):
            if is_eligible(layer):
                return WinogradConv2d(layer, self._pack_component)
            return self._pack(PackedConv2d, layer, layer.weight.dtype)
        return None

    def _pack_stem(self, layer: Conv2d) -> nn.Module | None:
        packed = self._pack(PackedConv2d, without_row_padding(layer), layer.weight.dtype)
        if packed is None:
            return None
        return PackedStem(packed, int(layer.padding[0]), layer.out_channels)

    def _pack_component(self, layer: nn.Conv2d) -> nn.Module:
        packed = self._pack(PackedConv2d, layer, layer.weight.dtype, input_hw=STEP_HW)
        return layer if packed is None else packed

    def _pack(
        self, kind: "_Packed", layer: Any, dtype: torch.dtype, **options: Any
    ) -> nn.Module | None:
        if (kind, dtype) not in self._usable:
            problem = find_problem(kind, dtype, self._operators)
            self._usable[kind, dtype] = not problem
            if problem:
                logger.warning("oneDNN: %s in %s is not usable: %s", kind.__name__, dtype, problem)
        return kind(layer, self._operators, **options) if self._usable[kind, dtype] else None


class PackedConv2d(nn.Module):
    """Replaces a convolution; it has no parameters, because the layout is oneDNN's.

    Args:
        convolution: in the dtype of its input.
        operators: see `pack`.
        input_hw: height and width of inputs that the weights are laid out for; for others, and
            without it, oneDNN rearranges them in each call.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        operators: Any = torch.ops.mkldnn,
        input_hw: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.operators = operators
        self.norm, self.relu = norm_and_relu(convolution)
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        # Plain attributes: a tensor in oneDNN's layout cannot be saved, moved or converted.
        size = None if input_hw is None else [1, convolution.in_channels, *input_hw]
        self.weight = self.operators._reorder_convolution_weight(
            convolution.weight.detach(), *self.geometry, size
        )
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H', W']."""
        activation = "relu" if self.relu and self.norm is None else "none"
        output: Tensor = self.operators._convolution_pointwise(
            input, self.weight, self.bias, *self.geometry, activation, [], ""
        )
        return output if self.norm is None else apply_norm(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        if self.norm is not None:
            return F.relu_(self(input).add_(other))
        output: Tensor = self.operators._convolution_pointwise_.binary(
            other, input, self.weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return output


class PackedLinear(nn.Module):
    """Replaces a `FullyConnectedConv2d`.

    torch would use MKL for float32 products, which is many times slower while other processes keep
    the cores busy.
    """

    def __init__(
        self, convolution: FullyConnectedConv2d, operators: Any = torch.ops.mkldnn
    ) -> None:
        super().__init__()
        self.operators = operators
        # Plain attributes, see `PackedConv2d`.
        rows = flatten_rows(convolution.weight.detach())
        self.weight = self.operators._reorder_linear_weight(rows)
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `FullyConnectedConv2d.forward`."""
        output: Tensor = self.operators._linear_pointwise(
            flatten_rows(input), self.weight, self.bias, "none", [], ""
        )
        return output[:, :, None, None]


class PackedDeconv2x2(nn.Module):
    """Replaces a `Deconv2x2`."""

    def __init__(self, deconvolution: Deconv2x2, operators: Any = torch.ops.mkldnn) -> None:
        super().__init__()
        self.convolution = PackedConv2d(deconvolution.as_convolution(), operators)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Deconv2x2.forward`."""
        return split_cells(self.convolution(input))


_Packed: TypeAlias = (
    type[PackedConv2d] | type[PackedLinear] | type[PackedDeconv2x2] | type[PackedRows]
)


def find_problem(kind: _Packed, dtype: torch.dtype, operators: Any) -> str:
    """Compare a packed layer with the plain one on a sample.

    Args:
        kind: class of the packed layer.
        dtype: type of the layer and of its input.
        operators: see `pack`.

    Returns:
        Why the operators are not usable; empty if they are.
    """
    plain = _sample_layer(kind).to(dtype)
    try:
        with torch.inference_mode():
            found = list(_sample_outputs(kind(plain, operators), dtype))
            expected = list(_sample_outputs(plain, dtype))
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
    equal = all(is_close(*pair) for pair in zip(found, expected, strict=True))
    return "" if equal else "its result for a sample is wrong"


def _sample_layer(kind: _Packed) -> Any:
    layer: nn.Conv2d | nn.ConvTranspose2d | Linear
    with torch.device("meta"):  # avoids random initialization
        if kind is PackedLinear:
            layer = FullyConnectedConv2d(SAMPLE_CHANNELS, SAMPLE_CHANNELS, SAMPLE_SIDE)
        elif kind is PackedRows:
            layer = Linear(SAMPLE_CHANNELS, SAMPLE_CHANNELS, gelu=True)
        elif kind is PackedDeconv2x2:
            layer = Deconv2x2(SAMPLE_CHANNELS, SAMPLE_CHANNELS)
        else:
            layer = Conv2d(SAMPLE_CHANNELS, SAMPLE_CHANNELS, 3, relu=True)
    layer.weight = nn.Parameter(waves(*layer.weight.shape), requires_grad=False)
    layer.bias = nn.Parameter(waves(SAMPLE_CHANNELS), requires_grad=False)
    return layer


def _sample_outputs(layer: Any, dtype: torch.dtype) -> Iterator[Tensor]:
    features = sample_features(dtype)
    if isinstance(layer, Linear | PackedRows):
        rows = features.permute(0, 2, 3, 1)
        yield layer(rows)
        yield layer.add(rows, rows)
        return
    yield layer(features)
    if isinstance(layer, Conv2d | PackedConv2d):
        layer.relu = False  # as in all layers with a shortcut
        yield layer(features)
        yield layer.add_relu(features, features.clone())


def sample_features(dtype: torch.dtype) -> Tensor:
    """Float[2, SAMPLE_CHANNELS, SAMPLE_SIDE, SAMPLE_SIDE] in channels_last."""
    features = waves(2, SAMPLE_CHANNELS, SAMPLE_SIDE, SAMPLE_SIDE).to(dtype)
    return features.to(memory_format=torch.channels_last)


def waves(*shape: int) -> Tensor:
    """Float32 values in -1..1 that differ, without random numbers."""
    return torch.arange(math.prod(shape), dtype=torch.float32).sin().view(shape)


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal up to the rounding of bfloat16."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
