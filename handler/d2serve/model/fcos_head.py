"""The head of FCOS: class scores, box distances and box quality at every pixel of every level."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import DeformConfig
from d2serve.model.deformable_conv import SelfDeformConv2d
from d2serve.model.fcos_config import FCOSConfig, TowerConfig
from d2serve.model.layers import FrozenBatchNorm2d, make_norm

NORMS_PER_LEVEL = ("BN", "SyncBN")
MODULATED = DeformConfig(modulated=True, groups=1)


@dataclass(frozen=True)
class LevelOutput:
    """The head's output for a level of N images with P pixels.

    logits: Float[N, P, K] of class scores; distances: Float32[N, P, 4] from a pixel's centre to the
    left, top, right and bottom side in units of the stride; quality: Float[N, P] logits; hidden:
    Float[N, C, H, W], the output of the boxes' tower.
    """

    logits: Tensor
    distances: Tensor
    quality: Tensor
    hidden: Tensor


class FCOSHead(nn.Module):
    """Towers of convolutions for classes and boxes, after one that they share."""

    def __init__(self, channels: int, config: FCOSConfig) -> None:
        super().__init__()
        levels = len(config.in_features)
        self.share_tower = Tower(channels, levels, config.share, config.norm)
        self.cls_tower = Tower(channels, levels, config.classes, config.norm)
        self.bbox_tower = Tower(channels, levels, config.boxes, config.norm)
        self.cls_logits = nn.Conv2d(channels, config.num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales: nn.ModuleList | None = None
        if config.use_scale:
            self.scales = nn.ModuleList(Scale() for _ in range(levels))

    def forward(self, level: int, feature: Tensor) -> LevelOutput:
        """Run the head on a level's Float[N, C, H, W]."""
        shared = self.share_tower(level, feature)
        hidden = self.bbox_tower(level, shared)
        distances = _per_pixel(self.bbox_pred(hidden)).float()
        if self.scales is not None:
            distances = self.scales[level](distances)
        return LevelOutput(
            logits=_per_pixel(self.cls_logits(self.cls_tower(level, shared))),
            distances=F.relu(distances),
            quality=_per_pixel(self.ctrness(hidden))[..., 0],
            hidden=hidden,
        )


class Scale(nn.Module):
    """Multiplication by a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Tensor:
        """Float[...] -> the same shape."""
        return values * self.scale


class Tower(nn.Sequential):
    """3x3 convolutions, each with a norm, if configured, and a ReLU."""

    def __init__(self, channels: int, levels: int, config: TowerConfig, norm: str) -> None:
        super().__init__()
        for index in range(config.num_convs):
            is_deformable = index >= config.num_convs - config.num_deformable
            self.append(_make_convolution(channels, is_deformable))
            layer = _make_norm(channels, levels, norm)
            if layer is not None:
                self.append(layer)
            self.append(nn.ReLU(inplace=True))

    def forward(self, level: int, feature: Tensor) -> Tensor:  # type: ignore[override]
        """Float[N, C, H, W] of a level -> the same shape."""
        for layer in self:
            feature = layer[level](feature) if isinstance(layer, nn.ModuleList) else layer(feature)
        return feature


def _make_convolution(channels: int, is_deformable: bool) -> nn.Module:
    if is_deformable:
        return SelfDeformConv2d(channels, channels, deform=MODULATED, bias=True, relu=False)
    return nn.Conv2d(channels, channels, 3, padding=1)


def _make_norm(channels: int, levels: int, norm: str) -> nn.Module | None:
    if norm in NORMS_PER_LEVEL:
        return nn.ModuleList(FrozenBatchNorm2d(channels) for _ in range(levels))
    return make_norm(norm, channels)


def _per_pixel(output: Tensor) -> Tensor:
    """Float[N, V, H, W] -> Float[N, H*W, V]."""
    return output.permute(0, 2, 3, 1).flatten(1, 2)
