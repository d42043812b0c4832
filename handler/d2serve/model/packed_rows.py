"""Fully connected layers of transformers with weights in oneDNN's packed CPU layout."""

from typing import Any

import torch
from torch import Tensor, nn

from d2serve.model.linear import Linear


class PackedRows(nn.Module):
    """Replaces a `Linear`; it has no parameters, because the layout is oneDNN's."""

    def __init__(self, layer: Linear, operators: Any = torch.ops.mkldnn) -> None:
        super().__init__()
        self.operators = operators
        self.activation = "gelu" if layer.gelu else "relu" if layer.relu else "none"
        # Without the approximation by a hyperbolic tangent.
        self.algorithm = "none" if layer.gelu else ""
        self.dtype = layer.weight.dtype
        # Plain attributes: a tensor in oneDNN's layout cannot be saved, moved or converted.
        self.weight = operators._reorder_linear_weight(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Linear.forward`."""
        output: Tensor = self.operators._linear_pointwise(
            input.to(self.dtype), self.weight, self.bias, self.activation, [], self.algorithm
        )
        return output

    def add(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Linear.add`."""
        output: Tensor = self.operators._linear_pointwise.binary(
            input, other, self.weight, self.bias, "add"
        )
        return output
