"""The ConvNeXt backbone (Liu et al. 2022), as in the detectron2 folder of
github.com/facebookresearch/ConvNeXt."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from d2serve.model.backbone_config import ConvNeXtConfig
from d2serve.model.layers import ChannelLayerNorm
from d2serve.model.linear import Linear

NORM_EPS = 1e-6
EXPANSION = 4


class ConvNeXtBlock(nn.Module):
    """A 7x7 depthwise convolution and an MLP, with a residual connection."""

    def __init__(self, dim: int, layer_scale: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = Linear(dim, EXPANSION * dim, gelu=True)
        self.pwconv2 = Linear(EXPANSION * dim, dim)
        self.scaled = layer_scale
        if layer_scale:
            self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, C, H, W], channels last in memory -> the same shape."""
        rows = features.permute(0, 2, 3, 1)
        hidden = self.pwconv1(self.norm(self.dwconv(features).permute(0, 2, 3, 1)))
        if self.scaled:
            output = torch.addcmul(rows, self.gamma.to(rows.dtype), self.pwconv2(hidden))
        else:
            output = self.pwconv2.add(hidden, rows)
        return output.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Four stages, each of half the resolution of the one before; a norm for each feature map.

    Attributes:
        channels, strides: of each feature map, by name.
    """

    size_divisibility = 32
    square_size = 0

    def __init__(self, config: ConvNeXtConfig, in_channels: int = 3) -> None:
        super().__init__()
        dims = config.dims
        stem = nn.Sequential(
            nn.Conv2d(in_channels, dims[0], 4, stride=4), ChannelLayerNorm(dims[0])
        )
        self.downsample_layers = nn.ModuleList([stem])
        for dim, following in pairwise(dims):
            halving = nn.Conv2d(dim, following, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(ChannelLayerNorm(dim), halving))
        self.stages = nn.ModuleList()
        for stage, (dim, depth) in enumerate(zip(dims, config.depths, strict=True)):
            blocks = (ConvNeXtBlock(dim, config.layer_scale) for _ in range(depth))
            self.stages.append(nn.Sequential(*blocks))
            self.add_module(f"norm{stage}", ChannelLayerNorm(dim))
        self.names = dict(zip(config.feature_stages, config.features, strict=True))
        self.channels = {name: dims[stage] for stage, name in self.names.items()}
        self.strides = {name: 4 * 2**stage for stage, name in self.names.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W], H and W multiples of 32 -> by name Float[N, C, H/s, W/s]
        with s = 4, 8, 16 and 32."""
        features, maps = images, {}
        layers = zip(self.downsample_layers, self.stages, strict=True)
        for index, (downsample, stage) in enumerate(layers):
            features = stage(downsample(features))
            if index in self.names:
                maps[self.names[index]] = self.get_submodule(f"norm{index}")(features)
        return maps
