"""ResNet and ResNeXt backbones (He et al. 2016; `detectron2.modeling.backbone.resnet`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import (
    BASIC_BLOCK_DEPTHS,
    STAGES,
    STEM,
    DeformConfig,
    ResNetConfig,
)
from d2serve.model.deformable_conv import DeformConv2d, OffsetConv2d
from d2serve.model.layers import Conv2d

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STEM_STRIDE = 4
RES4, RES5 = 2, 3  # indices of stages


class Stem(nn.Module):
    """A 7x7 convolution and a 3x3 max pool, together of stride 4."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 7, stride=2, norm=norm, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, C, H/4, W/4]."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class DeepLabStem(nn.Module):
    """Three 3x3 convolutions and a 3x3 max pool, together of stride 4."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        width = out_channels // 2
        self.conv1 = Conv2d(in_channels, width, 3, stride=2, norm=norm, relu=True)
        self.conv2 = Conv2d(width, width, 3, norm=norm, relu=True)
        self.conv3 = Conv2d(width, out_channels, 3, norm=norm, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, C, H/4, W/4]."""
        features = self.conv3(self.conv2(self.conv1(images)))
        return F.max_pool2d(features, kernel_size=3, stride=2, padding=1)


@dataclass(frozen=True)
class BlockShape:
    """Parameters that the blocks of a stage share; `width` is a bottleneck's inner channels."""

    out_channels: int
    width: int
    stride: int
    dilation: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    def __init__(self, in_channels: int, shape: BlockShape, config: ResNetConfig) -> None:
        super().__init__()
        out_channels, norm = shape.out_channels, config.norm
        self.shortcut = _shortcut(in_channels, shape, norm)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride=shape.stride, norm=norm, relu=True)
        self.conv2 = Conv2d(out_channels, out_channels, 3, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in, H, W] -> Float[N, out, H/stride, W/stride]."""
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return self.conv2.add_relu(self.conv1(features), shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and deeper, ResNeXt by groups)."""

    def __init__(self, in_channels: int, shape: BlockShape, config: ResNetConfig) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = _strides(shape, config)
        width, norm = shape.width, config.norm
        self.shortcut = _shortcut(in_channels, shape, norm)
        self.conv1 = Conv2d(in_channels, width, 1, stride=stride_1x1, norm=norm, relu=True)
        self.conv2 = Conv2d(
            width,
            width,
            3,
            stride=stride_3x3,
            dilation=shape.dilation,
            groups=config.num_groups,
            norm=norm,
            relu=True,
        )
        self.conv3 = Conv2d(width, shape.out_channels, 1, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in, H, W] -> Float[N, out, H/stride, W/stride]."""
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return self.conv3.add_relu(self.conv2(self.conv1(features)), shortcut)


class DeformBottleneckBlock(nn.Module):
    """A bottleneck whose 3x3 convolution is deformable."""

    def __init__(
        self, in_channels: int, shape: BlockShape, config: ResNetConfig, deform: DeformConfig
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = _strides(shape, config)
        width, norm = shape.width, config.norm
        self.shortcut = _shortcut(in_channels, shape, norm)
        self.conv1 = Conv2d(in_channels, width, 1, stride=stride_1x1, norm=norm, relu=True)
        self.conv2_offset = OffsetConv2d(
            width, stride=stride_3x3, dilation=shape.dilation, config=deform
        )
        self.conv2 = DeformConv2d(
            width,
            stride=stride_3x3,
            dilation=shape.dilation,
            groups=config.num_groups,
            norm=norm,
        )
        self.conv3 = Conv2d(width, shape.out_channels, 1, norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in, H, W] -> Float[N, out, H/stride, W/stride]."""
        shortcut = features if self.shortcut is None else self.shortcut(features)
        hidden = self.conv1(features)
        hidden = self.conv2(hidden, *self.conv2_offset.sampling(hidden))
        return self.conv3.add_relu(hidden, shortcut)


class ResNet(nn.Module):
    """The stem and the stages `res2` to the config's `last_stage`.

    Attributes:
        channels, strides: of each feature map, by name.
    """

    size_divisibility = 1
    square_size = 0

    def __init__(self, config: ResNetConfig, in_channels: int = 3) -> None:
        super().__init__()
        stem = DeepLabStem if config.deep_stem else Stem
        self.stem = stem(in_channels, config.stem_out_channels, config.norm)
        in_channels, stride = config.stem_out_channels, STEM_STRIDE
        self.stages = STAGES[: config.last_stage - 1]
        self.channels = {STEM: in_channels} if config.stem_feature else {}
        self.strides = {STEM: stride} if config.stem_feature else {}
        for index, name in enumerate(self.stages):
            shape = _backbone_shape(index, config)
            factors = config.res5_multi_grid if index == RES5 else ()
            self.add_module(name, make_stage(index, in_channels, shape, config, factors))
            stride *= shape.stride
            self.channels[name] = in_channels = shape.out_channels
            self.strides[name] = stride

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W] -> by name Float[N, C, H/s, W/s] with s = 4 for the stem and
        4, 8, 16 and 32 for the stages; a dilated stage has the stride of the one before."""
        features = self.stem(images)
        # The first block may overwrite its input.
        maps = {STEM: features.clone()} if STEM in self.channels else {}
        for name in self.stages:
            maps[name] = features = self.get_submodule(name)(features)
        return maps


def make_stage(
    index: int,
    in_channels: int,
    shape: BlockShape,
    config: ResNetConfig,
    dilation_factors: Sequence[int] = (),
) -> nn.Sequential:
    """Build a stage, from res2 (`index` 0) to res5 (3); its first block has the stride.

    Args:
        index: of the stage.
        in_channels: of its input.
        shape: of its blocks.
        config: of the network.
        dilation_factors: of each block (multi-grid); by default 1.
    """
    stage = nn.Sequential()
    count = BLOCKS_PER_STAGE[config.depth][index]
    for factor in dilation_factors or (1,) * count:
        block = replace(shape, dilation=shape.dilation * factor)
        stage.append(_make_block(index, in_channels, block, config))
        in_channels = shape.out_channels
        shape = replace(shape, stride=1)
    return stage


def stage_shape(index: int, config: ResNetConfig, stride: int, dilation: int) -> BlockShape:
    """The parameters of a stage's blocks; channels double from stage to stage."""
    return BlockShape(
        out_channels=config.res2_out_channels * 2**index,
        width=config.num_groups * config.width_per_group * 2**index,
        stride=stride,
        dilation=dilation,
    )


def _backbone_shape(index: int, config: ResNetConfig) -> BlockShape:
    dilation = {RES4: config.res4_dilation, RES5: config.res5_dilation}.get(index, 1)
    stride = 1 if index == 0 or dilation > 1 else 2
    return stage_shape(index, config, stride, dilation)


def _make_block(index: int, in_channels: int, shape: BlockShape, config: ResNetConfig) -> nn.Module:
    if config.depth in BASIC_BLOCK_DEPTHS:
        return BasicBlock(in_channels, shape, config)
    deform = config.deform[index]
    if deform is not None:
        return DeformBottleneckBlock(in_channels, shape, config, deform)
    return BottleneckBlock(in_channels, shape, config)


def _strides(shape: BlockShape, config: ResNetConfig) -> tuple[int, int]:
    """Strides of a bottleneck's first 1x1 and its 3x3 convolution."""
    return (shape.stride, 1) if config.stride_in_1x1 else (1, shape.stride)


def _shortcut(in_channels: int, shape: BlockShape, norm: str) -> Conv2d | None:
    # As in Detectron2, only a change of the number of channels needs a projection.
    if in_channels == shape.out_channels:
        return None
    return Conv2d(in_channels, shape.out_channels, 1, stride=shape.stride, norm=norm)
