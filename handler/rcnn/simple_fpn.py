"""A pyramid from one feature map (Li et al. 2022, ViTDet, section 3;
`detectron2.modeling.backbone.vit.SimpleFeaturePyramid`)."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config.backbone import SimpleFPNConfig
from handler.rcnn.layers import Conv2d, make_norm
from handler.rcnn.vit import ViT


class SimpleFeaturePyramid(nn.Module):
    """Each level is scaled from the last feature map of the transformer by itself.

    Attributes:
        channels, strides: of each level, by name.
        square_size: the side in pixels of the square that every picture is padded to.
    """

    # Detectron2 rounds the square to no multiple of the strides.
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
        """Float[N, 3, S, S] with S = `square_size` -> Float[N, C, S/s, S/s] for each level."""
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
    level = nn.Sequential(*_scaling(config, scale))
    channels = config.vit.dim // int(max(scale, 1.0))
    level.append(Conv2d(channels, config.out_channels, 1, norm=config.norm))
    level.append(Conv2d(config.out_channels, config.out_channels, 3, norm=config.norm))
    return level


def _scaling(config: SimpleFPNConfig, scale: float) -> Iterator[nn.Module]:
    """Upsampling halves the channels each time."""
    dim = config.vit.dim
    if scale == 0.5:
        yield nn.MaxPool2d(2)
    if scale > 1.0:
        yield nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)
    if scale == 4.0:
        norm = make_norm(config.norm, dim // 2)
        assert norm is not None, "the config has been checked"
        yield norm
        yield nn.GELU()
        yield nn.ConvTranspose2d(dim // 2, dim // 4, 2, stride=2)
