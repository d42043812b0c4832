"""The two building blocks of every layer stack: a frozen batch norm and a convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics (`detectron2.layers.batch_norm.FrozenBatchNorm2d`)."""

    eps = 1e-5
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - self.eps)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, C, H, W] -> the same shape."""
        return F.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class Conv2d(nn.Conv2d):
    """A convolution that keeps its norm as the child `norm`, as `detectron2.layers.Conv2d` does."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
        )
        self.norm = norm
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H', W']."""
        output = super().forward(input)
        if self.norm is not None:
            output = self.norm(output)
        return F.relu_(output) if self.relu else output


def conv_frozen_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> Conv2d:
    """A size-keeping convolution without bias, followed by a frozen batch norm."""
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
        norm=FrozenBatchNorm2d(out_channels),
        relu=relu,
    )
