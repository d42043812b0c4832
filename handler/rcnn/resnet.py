"""ResNet and ResNeXt backbones (He et al. 2016; `detectron2.modeling.backbone.resnet`)."""

import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config import ResNetConfig
from handler.rcnn.layers import Conv2d, conv_frozen_bn

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BASIC_BLOCK_DEPTHS = (18, 34)


class Stem(nn.Module):
    """A 7x7 convolution and a 3x3 max pool, together of stride 4."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv_frozen_bn(3, out_channels, 7, stride=2, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, 3, H, W] -> Float[N, C, H/4, W/4]."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.conv1 = conv_frozen_bn(in_channels, out_channels, 3, stride=stride, relu=True)
        self.conv2 = conv_frozen_bn(out_channels, out_channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in, H, W] -> Float[N, out, H/stride, W/stride]."""
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return F.relu_(self.conv2(self.conv1(features)).add_(shortcut))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and deeper, ResNeXt by groups)."""

    def __init__(
        self, in_channels: int, out_channels: int, width: int, stride: int, config: ResNetConfig
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.conv1 = conv_frozen_bn(in_channels, width, 1, stride=stride_1x1, relu=True)
        self.conv2 = conv_frozen_bn(
            width, width, 3, stride=stride_3x3, groups=config.num_groups, relu=True
        )
        self.conv3 = conv_frozen_bn(width, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in, H, W] -> Float[N, out, H/stride, W/stride]."""
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return F.relu_(self.conv3(self.conv2(self.conv1(features))).add_(shortcut))


class ResNet(nn.Module):
    """The stem and the stages `res2` to `res5`."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = Stem(config.stem_out_channels)
        self.out_channels: dict[str, int] = {}
        in_channels = config.stem_out_channels
        for index, blocks in enumerate(BLOCKS_PER_STAGE[config.depth]):
            name = f"res{index + 2}"
            out_channels = config.res2_out_channels * 2**index
            self.add_module(name, _stage(index, blocks, in_channels, out_channels, config))
            self.out_channels[name] = in_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, 3, H, W] -> per stage Float[N, C, H/s, W/s] with s = 4, 8, 16, 32."""
        features = self.stem(images)
        stages = {}
        for name in self.out_channels:
            stages[name] = features = self.get_submodule(name)(features)
        return stages


def _stage(
    index: int, blocks: int, in_channels: int, out_channels: int, config: ResNetConfig
) -> nn.Sequential:
    stage = nn.Sequential()
    for block in range(blocks):
        stride = 2 if block == 0 and index > 0 else 1
        if config.depth in BASIC_BLOCK_DEPTHS:
            stage.append(BasicBlock(in_channels, out_channels, stride))
        else:
            width = config.num_groups * config.width_per_group * 2**index
            stage.append(BottleneckBlock(in_channels, out_channels, width, stride, config))
        in_channels = out_channels
    return stage


def _shortcut(in_channels: int, out_channels: int, stride: int) -> Conv2d | None:
    # Detectron2 projects by channel count alone: a first stage of equal width has no projection.
    if in_channels == out_channels:
        return None
    return conv_frozen_bn(in_channels, out_channels, 1, stride=stride)
