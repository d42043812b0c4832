"""A fully connected layer with an optional activation, applied to rows."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear` that can be followed by a ReLU or GELU; packed for CPUs by `packed_conv`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        relu: bool = False,
        gelu: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.relu, self.gelu = relu, gelu

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[..., in_features] -> Float[..., out_features]."""
        output = super().forward(input)
        if self.gelu:
            return F.gelu(output)
        return F.relu_(output) if self.relu else output

    def add(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """The output without activation plus Float[..., out_features]."""
        return super().forward(input).add_(other)


class FullPrecisionLinear(Linear):
    """A layer that computes in float32 in any case."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[..., in_features] -> Float32[..., out_features]."""
        return super().forward(input.float())


AnyLinear = TypeVar("AnyLinear", bound=Linear)


def linear_from(kind: type[AnyLinear], weight: Tensor, bias: Tensor) -> AnyLinear:
    """Build a layer from Float[out, in] and Float[out], which are not copied."""
    with torch.device("meta"):  # avoids random initialization
        layer = kind(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
