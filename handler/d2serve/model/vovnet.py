"""VoVNet backbones with effective squeeze-and-excitation (Lee and Park 2020, CenterMask).

Stages consist of one-shot aggregation modules (Lee et al. 2019): a chain of 3x3 convolutions, whose
outputs are all concatenated at the end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import VoVNetConfig
from d2serve.model.deformable_conv import SelfDeformConv2d
from d2serve.model.layers import Conv2d

STEM_STRIDE = 4


class SeparableConv2d(nn.Sequential):
    """A 3x3 convolution of each channel, then a 1x1 convolution with norm and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = ""
    ) -> None:
        super().__init__()
        depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.add_module("depthwise", depthwise)
        self.add_module("pointwise", Conv2d(in_channels, out_channels, 1, norm=norm, relu=True))


class ChannelAttention(nn.Module):
    """Scale each channel by a number computed from the means of all (`eSE`).

    The means include padding, so an image's result depends on its padded size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, C, H, W] -> the same shape; the input is overwritten."""
        means = features.mean(dim=(2, 3), keepdim=True)
        return features.mul_(F.hardsigmoid(self.fc(means)))


class OneShotAggregation(nn.Module):
    """A chain of 3x3 convolutions and a 1x1 convolution of the input and all their outputs."""

    def __init__(self, in_channels: int, stage: int, config: VoVNetConfig, shortcut: bool) -> None:
        super().__init__()
        width, norm = config.widths[stage], config.norm
        self.shortcut = shortcut
        self.conv_reduction: nn.Module | None = None
        first_channels = in_channels
        if config.depthwise and in_channels != width:
            self.conv_reduction = Conv2d(in_channels, width, 1, norm=norm, relu=True)
            first_channels = width
        self.layers = nn.ModuleList(
            _make_layer(first_channels if index == 0 else width, stage, config)
            for index in range(config.layers_per_block)
        )
        concatenated = in_channels + config.layers_per_block * width
        out_channels = config.out_channels[stage]
        self.concat = Conv2d(concatenated, out_channels, 1, norm=norm, relu=True)
        self.ese = ChannelAttention(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H, W]."""
        outputs = [features]
        hidden = features if self.conv_reduction is None else self.conv_reduction(features)
        for layer in self.layers:
            hidden = layer(hidden)
            outputs.append(hidden)
        result: Tensor = self.ese(self.concat(torch.cat(outputs, dim=1)))
        return result.add_(features) if self.shortcut else result


def _make_layer(in_channels: int, stage: int, config: VoVNetConfig) -> nn.Module:
    width, norm = config.widths[stage], config.norm
    deform = config.deform[stage]
    if config.depthwise:
        return SeparableConv2d(in_channels, width, norm=norm)
    if deform is not None:
        return SelfDeformConv2d(in_channels, width, norm=norm, deform=deform)
    return Conv2d(in_channels, width, 3, norm=norm, relu=True)


class Stage(nn.Sequential):
    """Halve height and width, except in the first stage, then run one-shot aggregations."""

    def __init__(self, in_channels: int, index: int, config: VoVNetConfig) -> None:
        super().__init__()
        if index > 0:
            self.add_module("Pooling", nn.MaxPool2d(3, stride=2, ceil_mode=True))
        for block in range(config.blocks_per_stage[index]):
            module = OneShotAggregation(in_channels, index, config, shortcut=block > 0)
            self.add_module(f"OSA{index + 2}_{block + 1}", module)
            in_channels = config.out_channels[index]


class VoVNet(nn.Module):
    """The stem and the stages up to the last feature map of the config.

    Attributes:
        channels, strides: of each feature map, by name.
    """

    size_divisibility = 1
    square_size = 0

    def __init__(self, config: VoVNetConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = _make_stem(in_channels, config)
        channels = (config.stem_channels[-1], *config.out_channels)
        self.stages = config.stages
        for index, name in enumerate(self.stages):
            self.add_module(name, Stage(channels[index], index, config))
        every = {
            name: (channels[index + 1], STEM_STRIDE * 2**index)
            for index, name in enumerate(self.stages)
        }
        self.channels = {name: every[name][0] for name in config.features}
        self.strides = {name: every[name][1] for name in config.features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W] -> by name Float[N, C, H/s, W/s], s from 4 to 32."""
        hidden = self.stem(images)
        maps = {}
        for name in self.stages:
            maps[name] = hidden = self.get_submodule(name)(hidden)
        return {name: maps[name] for name in self.channels}


def _make_stem(in_channels: int, config: VoVNetConfig) -> nn.Sequential:
    first, second, third = config.stem_channels
    norm = config.norm
    stem = nn.Sequential()
    stem.add_module("stem_1", Conv2d(in_channels, first, 3, stride=2, norm=norm, relu=True))
    for index, (given, made, stride) in enumerate(((first, second, 1), (second, third, 2)), 2):
        layer: nn.Module
        if config.depthwise:
            # The channels of a depthwise convolution are those that it returns.
            layer = SeparableConv2d(given, made, stride=stride, norm=norm)
        else:
            layer = Conv2d(given, made, 3, stride=stride, norm=norm, relu=True)
        stem.add_module(f"stem_{index}", layer)
    return stem
