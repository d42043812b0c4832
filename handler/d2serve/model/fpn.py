"""Feature pyramid networks and backbone construction (`detectron2.modeling.backbone.fpn`).

Lin et al. 2017; the simple pyramid of ViTDet is by Li et al. 2022.
"""

from collections.abc import Iterator
from math import log2

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import (
    POOLED_TOP,
    TOP_LEVELS,
    AnyBackboneConfig,
    BottomUpConfig,
    ConvNeXtConfig,
    FPNConfig,
    ResNetConfig,
    SimpleFPNConfig,
    VoVNetConfig,
)
from d2serve.model.beit import DiT
from d2serve.model.convnext import ConvNeXt
from d2serve.model.layers import Conv2d, make_norm
from d2serve.model.resnet import ResNet
from d2serve.model.swin import SwinTransformer
from d2serve.model.vision_transformer_config import BEiTConfig, SwinConfig
from d2serve.model.vit import ViT
from d2serve.model.vovnet import VoVNet

# Networks with the attributes `channels` and `strides` by the names of their feature maps.
BottomUp = ResNet | VoVNet | SwinTransformer | ConvNeXt | DiT


class PooledTop(nn.Module):
    """p6: every second pixel of p5 (`LastLevelMaxPool`)."""

    def forward(self, p5: Tensor) -> list[Tensor]:
        """Float[N, C, H, W] -> [Float[N, C, H/2, W/2]]."""
        return [F.max_pool2d(p5, kernel_size=1, stride=2)]


class ConvolvedTop(nn.Module):
    """p6 and p7, or p6 alone: convolutions of stride 2, as in RetinaNet (`LastLevelP6P7`)."""

    def __init__(self, in_channels: int, out_channels: int, levels: int = 2) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7: nn.Conv2d | None = None
        if levels == 2:
            self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, coarsest: Tensor) -> list[Tensor]:
        """Float[N, C', H, W] -> Float[N, C, H/2, W/2] and half of that."""
        p6 = self.p6(coarsest)
        return [p6] if self.p7 is None else [p6, self.p7(F.relu(p6))]


class FPN(nn.Module):
    """A bottom-up network with a pyramid level for each of its feature maps, and coarser ones.

    Attributes:
        channels, strides: of each level, by name.
        stages: names of the bottom-up network's feature maps by the level that is made of each.
        size_divisibility: heights and widths of the input are multiples of it, in pixels.
        square_size: side in pixels of the square that images are padded to; 0 for none.
    """

    def __init__(self, bottom_up: BottomUp, config: FPNConfig) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.square_size = config.square_size
        self.stages = {int(log2(bottom_up.strides[name])): name for name in config.in_features}
        self.average = config.fuse_type == "avg"
        for stage, name in self.stages.items():
            in_channels = bottom_up.channels[name]
            lateral = Conv2d(in_channels, config.out_channels, 1, norm=config.norm)
            output = Conv2d(config.out_channels, config.out_channels, 3, norm=config.norm)
            self.add_module(f"fpn_lateral{stage}", lateral)
            self.add_module(f"fpn_output{stage}", output)
        coarsest = config.in_features[-1]
        self.top_block = _make_top(bottom_up.channels[coarsest], config)
        # The map that the top is made of: the bottom-up network's, or the pyramid's.
        self.top_source = coarsest if _is_below_pyramid(config) else f"p{max(self.stages)}"
        self.size_divisibility = bottom_up.strides[coarsest]
        levels = range(min(self.stages), max(self.stages) + TOP_LEVELS[config.top_block] + 1)
        self.strides = {f"p{level}": 2**level for level in levels}
        self.channels = dict.fromkeys(self.strides, config.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W], H and W multiples of `size_divisibility` -> for each level
        Float[N, C, H/s, W/s]."""
        stages = self.bottom_up(images)
        levels: dict[str, Tensor] = {}
        above: Tensor | None = None
        for stage, name in reversed(self.stages.items()):
            fused = self.get_submodule(f"fpn_lateral{stage}")(stages[name])
            if above is not None:
                add_upsampled(fused, above)
                fused = fused / 2 if self.average else fused
            levels[f"p{stage}"] = self.get_submodule(f"fpn_output{stage}")(fused)
            above = fused
        if self.top_block is not None:
            top = self.top_block({**stages, **levels}[self.top_source])
            names = (f"p{max(self.stages) + step}" for step in (1, 2))
            levels |= dict(zip(names, top, strict=False))
        return levels


def _make_top(in_channels: int, config: FPNConfig) -> PooledTop | ConvolvedTop | None:
    levels = TOP_LEVELS[config.top_block]
    if config.top_block == POOLED_TOP or levels == 0:
        return PooledTop() if levels else None
    in_channels = config.out_channels if config.top_of_pyramid else in_channels
    return ConvolvedTop(in_channels, config.out_channels, levels)


def _is_below_pyramid(config: FPNConfig) -> bool:
    return config.top_block != POOLED_TOP and not config.top_of_pyramid


def add_upsampled(fine: Tensor, coarse: Tensor) -> None:
    """Add Float[N, C, H, W], upsampled to nearest, to Float[N, C, 2H, 2W] in place."""
    cells = fine.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    cells.add_(coarse[:, :, :, None, :, None])


class SimpleFeaturePyramid(nn.Module):
    """A ViT with pyramid levels that are each scaled from its last feature map (ViTDet).

    Attributes:
        channels, strides: of each level, by name.
        square_size: side in pixels of the square that every image is padded to.
    """

    # Detectron2 does not round the square to a multiple of the strides.
    size_divisibility = 1

    def __init__(self, net: ViT, config: SimpleFPNConfig) -> None:
        super().__init__()
        self.net = net
        self.strides = {f"p{level}": 2**level for level in config.levels}
        self.channels = dict.fromkeys(self.strides, config.out_channels)
        self.square_size = config.square_size
        for level, scale in zip(config.levels, config.scale_factors, strict=True):
            self.add_module(f"simfp_{level}", _make_level(config, scale))
        self.pooled_top = f"p{config.levels[-1] + 1}" if config.pooled_top else None
        if self.pooled_top:
            self.strides[self.pooled_top] = 2 ** (config.levels[-1] + 1)
            self.channels[self.pooled_top] = config.out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, S, S] with S = `square_size` -> for each level
        Float[N, C, S/s, S/s]."""
        features = self.net(images)
        levels = {
            name: self.get_submodule(f"simfp_{name[1:]}")(features)
            for name in self.strides
            if name != self.pooled_top
        }
        if self.pooled_top:
            *_, coarsest = levels.values()
            levels[self.pooled_top] = F.max_pool2d(coarsest, kernel_size=1, stride=2)
        return levels


def _make_level(config: SimpleFPNConfig, scale: float) -> nn.Sequential:
    level = nn.Sequential(*_scaling_layers(config, scale))
    channels = config.vit.dim // int(max(scale, 1.0))
    level.append(Conv2d(channels, config.out_channels, 1, norm=config.norm))
    level.append(Conv2d(config.out_channels, config.out_channels, 3, norm=config.norm))
    return level


def _scaling_layers(config: SimpleFPNConfig, scale: float) -> Iterator[nn.Module]:
    # Each upsampling halves the channels.
    dim = config.vit.dim
    if scale == 0.5:
        yield nn.MaxPool2d(2)
    if scale > 1.0:
        yield nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)
    if scale == 4.0:
        norm = make_norm(config.norm, dim // 2)
        assert norm is not None, "the config requires a norm"
        yield norm
        yield nn.GELU()
        yield nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2)


Backbone = BottomUp | FPN | SimpleFeaturePyramid


def build_backbone(config: AnyBackboneConfig, in_channels: int = 3) -> Backbone:
    """Build a bottom-up network, one with FPN, or a ViT with a simple pyramid.

    Its output is feature maps by name: of a ResNet `stem` and `res2` to `res5`, of a pyramid the
    levels `p2`, `p3`, ...

    Args:
        config: of the backbone.
        in_channels: channels of the images.
    """
    if isinstance(config, SimpleFPNConfig):
        return SimpleFeaturePyramid(ViT(config.vit, in_channels), config)
    bottom_up = build_bottom_up(config.bottom_up, in_channels)
    return bottom_up if config.fpn is None else FPN(bottom_up, config.fpn)


def build_bottom_up(config: BottomUpConfig, in_channels: int) -> BottomUp:
    """Build the network that computes feature maps of several strides from images."""
    match config:
        case ConvNeXtConfig():
            return ConvNeXt(config, in_channels)
        case BEiTConfig():
            return DiT(config, in_channels)
        case SwinConfig():
            return SwinTransformer(config, in_channels)
        case VoVNetConfig():
            return VoVNet(config, in_channels)
        case ResNetConfig():
            return ResNet(config, in_channels)
