"""Convolutions and products with weights in oneDNN's packed CPU layouts."""

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
from d2serve.model.winograd import WinogradConv2d, is_eligible


def pack(model: nn.Module) -> None:
    """Replace a CPU network's convolutions by packed ones, in place, if torch has oneDNN.

    Convolutions that are packed already stay.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            packed = _pack_layer(child)
            if packed is not None:
                module.add_module(name, packed)


def _pack_layer(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, FullyConnectedConv2d):
        return PackedLinear(layer)
    if isinstance(layer, Deconv2x2):
        return PackedDeconv2x2(layer)
    # Other subclasses read their weights themselves.
    if isinstance(layer, nn.Conv2d) and type(layer) in (Conv2d, nn.Conv2d):
        return WinogradConv2d(layer) if is_eligible(layer) else PackedConv2d(layer)
    return None


class PackedConv2d(nn.Module):
    """Replaces a convolution; it has no parameters, because the layout is oneDNN's."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.relu = norm_and_relu(convolution)
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        # Plain attributes: a tensor in oneDNN's layout cannot be saved, moved or converted.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            convolution.weight.detach(), *self.geometry
        )
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H', W']."""
        activation = "relu" if self.relu and self.norm is None else "none"
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, self.weight, self.bias, *self.geometry, activation, [], ""
        )
        return output if self.norm is None else apply_norm(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        if self.norm is not None:
            return F.relu_(self(input).add_(other))
        output: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, input, self.weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return output


class PackedLinear(nn.Module):
    """Replaces a `FullyConnectedConv2d`.

    torch would use MKL for float32 products, which is many times slower while other processes keep
    the cores busy.
    """

    def __init__(self, convolution: FullyConnectedConv2d) -> None:
        super().__init__()
        # Plain attributes, see `PackedConv2d`.
        rows = flatten_rows(convolution.weight.detach())
        self.weight = torch.ops.mkldnn._reorder_linear_weight(rows)
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `FullyConnectedConv2d.forward`."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            flatten_rows(input), self.weight, self.bias, "none", [], ""
        )
        return output[:, :, None, None]


class PackedDeconv2x2(nn.Module):
    """Replaces a `Deconv2x2`."""

    def __init__(self, deconvolution: Deconv2x2) -> None:
        super().__init__()
        self.convolution = PackedConv2d(deconvolution.as_convolution())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Deconv2x2.forward`."""
        return split_cells(self.convolution(input))
