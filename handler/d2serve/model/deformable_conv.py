"""Deformable convolutions (Dai et al. 2017, Zhu et al. 2018; `detectron2.layers.deform_conv`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import DeformConfig
from d2serve.model.layers import Conv2d, make_norm

DEFORM_KERNEL_SIZE = 3
DEFORM_KERNEL_AREA = DEFORM_KERNEL_SIZE**2


class OffsetConv2d(Conv2d):
    """Predicts where a deformable convolution samples.

    Its output is y and x offsets in pixels for each kernel cell and, if modulated, a weight.
    """

    def __init__(
        self, in_channels: int, *, stride: int = 1, dilation: int = 1, config: DeformConfig
    ) -> None:
        per_cell = 3 if config.modulated else 2
        super().__init__(
            in_channels,
            per_cell * DEFORM_KERNEL_AREA * config.groups,
            DEFORM_KERNEL_SIZE,
            stride=stride,
            dilation=dilation,
        )
        self.offset_channels = 2 * DEFORM_KERNEL_AREA * config.groups

    def sampling(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict offsets and weights from Float[N, C, H, W].

        Returns:
            Offsets Float32[N, 2GK, H', W'] and weights Float32[N, GK, H', W'] in 0..1 for G groups
            and K kernel cells; the weights are None if not modulated.
        """
        output = self(features.to(self.weight.dtype))
        offsets, logits = output[:, : self.offset_channels], output[:, self.offset_channels :]
        return offsets, logits.sigmoid() if logits.shape[1] else None


class DeformConv2d(nn.Module):
    """A 3x3 convolution that samples at given offsets, its norm and, by default, a ReLU.

    By default it has as many outputs as inputs. Folding the norm sets the bias.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str,
        out_channels: int | None = None,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        out_channels = out_channels or channels
        shape = (out_channels, channels // groups, DEFORM_KERNEL_SIZE, DEFORM_KERNEL_SIZE)
        self.weight = nn.Parameter(torch.zeros(shape))
        initial = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_parameter("bias", initial)
        self.stride, self.dilation = stride, dilation
        self.norm = make_norm(norm, out_channels)
        self.relu = relu

    def forward(self, features: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
        """Float[N, C, H, W] and the output of `OffsetConv2d.sampling` -> Float[N, C, H', W']."""
        # Few models need this import, which takes long.
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
        output = output if self.norm is None else self.norm(output)
        output = F.relu_(output) if self.relu else output
        return output.to(features.dtype)


class SelfDeformConv2d(DeformConv2d):
    """A deformable convolution that predicts its own offsets."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: str = "",
        deform: DeformConfig,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__(in_channels, norm=norm, out_channels=out_channels, bias=bias, relu=relu)
        self.offset = OffsetConv2d(in_channels, config=deform)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H, W]."""
        return super().forward(features, *self.offset.sampling(features))
