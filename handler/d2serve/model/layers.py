"""Layers of all networks: norms, and convolutions with norm and ReLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_NORM_GROUPS = 32
# Neither a norm nor a bias; the norm "" has a bias in its place.
NO_NORM_NO_BIAS = "none"


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics (`detectron2.layers.batch_norm.FrozenBatchNorm2d`).

    At inference all batch norms of Detectron2 (BN, SyncBN, ...) compute the same.
    """

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


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel (`detectron2.layers.batch_norm.LayerNorm`)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, C, H, W] -> the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module | None:
    """Build the norm that a config calls `name` (`detectron2.layers.get_norm`).

    None for "" and NO_NORM_NO_BIAS.
    """
    if name in ("", NO_NORM_NO_BIAS):
        return None
    if name == "GN":
        return nn.GroupNorm(GROUP_NORM_GROUPS, channels)
    if name == "LN":
        return ChannelLayerNorm(channels)
    return FrozenBatchNorm2d(channels)


class Conv2d(nn.Conv2d):
    """A convolution with optional norm and ReLU (`detectron2.layers.Conv2d`).

    The norm is the child `norm`. Padding keeps height and width, up to the stride. A norm
    replaces the bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "",
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=not norm,
        )
        self.norm = make_norm(norm, out_channels)
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H', W']."""
        output = super().forward(input)
        if self.norm is not None:
            output = self.norm(output)
        return F.relu_(output) if self.relu else output

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """ReLU of the output plus Float[N, out_channels, H', W'], which may be overwritten."""
        return F.relu_(self(input).add_(other))


def norm_and_relu(convolution: nn.Conv2d) -> tuple[nn.Module | None, bool]:
    """The norm of a convolution, if any, and whether a ReLU follows."""
    if isinstance(convolution, Conv2d):
        return convolution.norm, convolution.relu
    return None, False


def apply_norm(output: Tensor, norm: nn.Module, relu: bool) -> Tensor:
    """Apply the norm, and the ReLU if one follows, to the output of a convolution."""
    output = norm(output)
    return F.relu_(output) if relu else output


class FullyConnectedConv2d(nn.Conv2d):
    """A fully connected layer as a convolution of the size of its input.

    Its input is pooled regions in the memory layout channels last.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, *kernel_size] -> Float[N, out_channels, 1, 1]."""
        return F.linear(flatten_rows(input), flatten_rows(self.weight), self.bias)[:, :, None, None]


def flatten_rows(input: Tensor) -> Tensor:  # noqa: A002, torch names it so
    """Float[N, C, H, W] -> Float[N, H * W * C], a view where channels are last in memory."""
    return input.permute(0, 2, 3, 1).flatten(1)


class Deconv2x2(nn.ConvTranspose2d):
    """A 2x2 transposed convolution of stride 2 and a ReLU: each cell becomes 2x2 cells.

    It is computed as a 1x1 convolution to four times the channels, which is faster on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def as_convolution(self) -> Conv2d:
        """The 1x1 convolution, without the rearrangement of `split_cells`."""
        with torch.device("meta"):  # avoids random initialization
            convolution = Conv2d(self.in_channels, 4 * self.out_channels, 1, relu=True)
        weight, bias = self._convolution_weights()
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        return convolution

    def forward(  # type: ignore[override]
        self,
        input: Tensor,  # noqa: A002, torch names it so
    ) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, H, W, 2, 2, out_channels]."""
        return split_cells(F.relu_(F.conv2d(input, *self._convolution_weights())))

    def _convolution_weights(self) -> tuple[Tensor, Tensor]:
        """Float[4 * out_channels, in_channels, 1, 1] and Float[4 * out_channels]."""
        assert self.bias is not None
        return self.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None], self.bias.repeat(4)


def split_cells(output: Tensor) -> Tensor:
    """Float[N, 4 * C, H, W] of a `Deconv2x2`'s convolution -> Float[N, H, W, 2, 2, C]."""
    return output.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))


class ChannelAffine(nn.Module):
    """Scale and shift every channel of Float[N, C, H, W] (DeFRCN's `AffineLayer`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, feature: Tensor) -> Tensor:
        """Return a feature map of the same shape."""
        return feature * self.weight + self.bias
