"""Deformable convolutions (Dai et al. 2017; Zhu et al. 2019; `detectron2.layers.deform_conv`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config.backbone import DeformConfig
from handler.rcnn.layers import Conv2d, make_norm

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
