"""Building blocks of all layer stacks: norms, convolutions with their norm, deformable convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import DeformConfig

GROUPS_OF_GROUP_NORM = 32


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics (`detectron2.layers.batch_norm.FrozenBatchNorm2d`).

    At inference every other batch norm of Detectron2's (BN, SyncBN, ...) computes the same.
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
    """Normalises the channels of each pixel (`detectron2.layers.batch_norm.LayerNorm`)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, C, H, W] -> the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module | None:
    """The norm that a config calls `name` (`detectron2.layers.get_norm`); None for ""."""
    if name == "":
        return None
    if name == "GN":
        return nn.GroupNorm(GROUPS_OF_GROUP_NORM, channels)
    if name == "LN":
        return ChannelLayerNorm(channels)
    return FrozenBatchNorm2d(channels)


class Conv2d(nn.Conv2d):
    """A convolution that keeps its norm as the child `norm`, as `detectron2.layers.Conv2d` does.

    It keeps the size apart from its stride, and has a bias where it has no norm.
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
        """ReLU of the output and Float[N, out_channels, H', W'], which may be overwritten."""
        return F.relu_(self(input).add_(other))


class WholeConv2d(nn.Conv2d):
    """A convolution as large as its input: a fully connected layer of regions as they lie in
    memory, channels last."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, *kernel_size] -> Float[N, out_channels, 1, 1]."""
        return F.linear(rows(input), rows(self.weight), self.bias)[:, :, None, None]


class CellUpsampling(nn.ConvTranspose2d):
    """A 2x2 transposed convolution of stride 2, and ReLU: each cell becomes four.

    That is a 1x1 convolution, which is quicker on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def as_convolution(self) -> Conv2d:
        """To four times the channels: those of each cell's four, one row after the other."""
        with torch.device("meta"):  # its own weights would be drawn in vain
            convolution = Conv2d(self.in_channels, 4 * self.out_channels, 1, relu=True)
        weight, bias = self._of_convolution()
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        return convolution

    def forward(  # type: ignore[override]
        self,
        input: Tensor,  # noqa: A002, torch names it so
    ) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, H, W, 2, 2, out_channels]."""
        return cells(F.relu_(F.conv2d(input, *self._of_convolution())))

    def _of_convolution(self) -> tuple[Tensor, Tensor]:
        """Float[4 * out_channels, in_channels, 1, 1] and Float[4 * out_channels]."""
        assert self.bias is not None
        return self.weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None], self.bias.repeat(4)


def rows(input: Tensor) -> Tensor:  # noqa: A002, torch names it so
    """Float[N, C, H, W] -> Float[N, H * W * C], a view where channels are last in memory."""
    return input.permute(0, 2, 3, 1).flatten(1)


def cells(output: Tensor) -> Tensor:
    """Float[N, 4 * C, H, W] -> Float[N, H, W, 2, 2, C] of a `CellUpsampling`'s convolution."""
    return output.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))


def epilogue(convolution: nn.Conv2d) -> tuple[nn.Module | None, bool]:
    """What follows a convolution: its norm, if there is one, and whether a ReLU does."""
    if isinstance(convolution, Conv2d):
        return convolution.norm, convolution.relu
    return None, False


def normalised(output: Tensor, norm: nn.Module, relu: bool) -> Tensor:
    """What a convolution's norm, and the ReLU where one follows, make of its output."""
    output = norm(output)
    return F.relu_(output) if relu else output


KERNEL_SIZE = 3
KERNEL_AREA = KERNEL_SIZE**2


class OffsetConv2d(Conv2d):
    """Where a deformable convolution samples: y and x offsets of each kernel cell in pixels and,
    where modulated, a weight for each."""

    def __init__(
        self, in_channels: int, *, stride: int, dilation: int, config: DeformConfig
    ) -> None:
        per_cell = 3 if config.modulated else 2
        out_channels = per_cell * KERNEL_AREA * config.groups
        super().__init__(in_channels, out_channels, KERNEL_SIZE, stride=stride, dilation=dilation)
        self.offset_channels = 2 * KERNEL_AREA * config.groups

    def sampling(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Float[N, C, H, W] -> offsets Float32[N, 2GK, H', W'] and weights Float32[N, GK, H', W']
        in 0..1, None where not modulated."""
        output = self(features.to(self.weight.dtype))
        offsets, logits = output[:, : self.offset_channels], output[:, self.offset_channels :]
        return offsets, logits.sigmoid() if logits.shape[1] else None


class DeformConv2d(nn.Module):
    """A 3x3 convolution that samples where it is told, its norm and a ReLU."""

    bias: nn.Parameter | None

    def __init__(
        self, channels: int, *, stride: int, dilation: int, groups: int, norm: str
    ) -> None:
        super().__init__()
        shape = (channels, channels // groups, KERNEL_SIZE, KERNEL_SIZE)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.register_parameter("bias", None)  # for the norm, once it is folded
        self.stride, self.dilation = stride, dilation
        self.norm = make_norm(norm, channels)

    def forward(self, features: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
        """Float[N, C, H, W] and what `OffsetConv2d.sampling` gave -> Float[N, C, H', W']."""
        # Takes its time to load, and few models need it.
        from torchvision.ops import deform_conv2d

        output = deform_conv2d(
            features.to(self.weight.dtype),
            offsets,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.dilation,
            dilation=self.dilation,
            mask=weights,
        )
        output = F.relu_(output if self.norm is None else self.norm(output))
        return output.to(features.dtype)
