"""Convolutions in oneDNN's packed CPU layouts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import (
    CellUpsampling,
    Conv2d,
    WholeConv2d,
    cells,
    epilogue,
    normalised,
    rows,
)
from d2serve.model.winograd import WinogradConv2d, pays


class PackedConv2d(nn.Module):
    """In the place of a convolution; without parameters, because the layout is oneDNN's."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.relu = epilogue(convolution)
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        # Plain attributes, as a tensor of oneDNN's layout cannot be saved, moved or converted.
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
        return output if self.norm is None else normalised(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        if self.norm is not None:
            return F.relu_(self(input).add_(other))
        output: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, input, self.weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return output


class PackedProduct(nn.Module):
    """In the place of a `WholeConv2d`.

    MKL, which torch asks for float32 products otherwise, takes many times longer where other
    processes keep the cores busy.
    """

    def __init__(self, convolution: WholeConv2d) -> None:
        super().__init__()
        # Plain attributes, see `PackedConv2d`.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(rows(convolution.weight.detach()))
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `WholeConv2d.forward`."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows(input), self.weight, self.bias, "none", [], ""
        )
        return output[:, :, None, None]


class PackedUpsampling(nn.Module):
    """In the place of a `CellUpsampling`."""

    def __init__(self, upsampling: CellUpsampling) -> None:
        super().__init__()
        self.convolution = PackedConv2d(upsampling.as_convolution())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `CellUpsampling.forward`."""
        return cells(self.convolution(input))


def pack(model: nn.Module) -> None:
    """Packs every convolution of a network on a CPU, in place, where torch comes with oneDNN.

    What was packed before stays.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            packed = _packed(child)
            if packed is not None:
                module.add_module(name, packed)


def _packed(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, WholeConv2d):
        return PackedProduct(layer)
    if isinstance(layer, CellUpsampling):
        return PackedUpsampling(layer)
    # Not a subclass: what samples by itself reads its weights.
    if isinstance(layer, nn.Conv2d) and type(layer) in (Conv2d, nn.Conv2d):
        return WinogradConv2d(layer) if pays(layer) else PackedConv2d(layer)
    return None
