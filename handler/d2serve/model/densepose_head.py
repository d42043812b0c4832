"""The DensePose head: part labels and surface coordinates of regions (Güler et al. 2018).

The layers and their names are those of Detectron2's project DensePose (`densepose.modeling`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import DensePoseConfig, ROIHeadsConfig
from d2serve.model.layers import GROUP_NORM_GROUPS, Conv2d
from d2serve.model.poolers import FeatureMaps, ROIPooler
from d2serve.model.roi_heads import StandardROIHeads
from d2serve.model.rpn import Proposals
from d2serve.model.semantic_seg import PyramidDecoder
from d2serve.model.structures import Instances, SizeHW

ASPP_DILATIONS = (6, 12, 56)
# Regions that run together, to bound memory.
MAX_REGIONS = 100
CHARTS = ("ann_index", "index_uv", "u", "v")
CONFIDENCES = ("coarse_segm_confidence", "fine_segm_confidence")


class DensePoseROIHeads(StandardROIHeads):
    """Standard heads, and the surfaces of the instances (`DensePoseROIHeads`)."""

    def __init__(
        self, backbone: Backbone, config: ROIHeadsConfig, densepose: DensePoseConfig
    ) -> None:
        super().__init__(backbone, config)
        strides = [backbone.strides[name] for name in config.in_features]
        in_channels = backbone.channels[config.in_features[0]]
        self.decoder: PyramidDecoder | None = None
        if densepose.decoder is not None:
            self.decoder = PyramidDecoder(backbone, densepose.decoder)
            strides = strides[:1]
        self.densepose_pooler = ROIPooler(densepose.pooler, strides)
        self.densepose_head = DensePoseHead(in_channels, densepose)
        self.densepose_predictor = ChartPredictor(self.densepose_head.out_channels, densepose)

    def forward(
        self, features: dict[str, Tensor], proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """See `StandardROIHeads.forward`."""
        instances = super().forward(features, proposals, sizes_hw)
        if self.decoder is None:
            levels = [features[name] for name in self.config.in_features]
        else:
            levels = [self.decoder(features)]
        maps = FeatureMaps.for_pooling(levels)
        pooled = self.densepose_pooler(maps, instances.boxes, instances.counts)
        charts = [
            self.densepose_predictor(self.densepose_head(regions))
            for regions in pooled.split(MAX_REGIONS)
        ]
        return replace(instances, densepose=torch.cat(charts))


class DensePoseHead(nn.Sequential):
    """Convolutions on each region (`DensePoseV1ConvXHead`, `DensePoseDeepLabHead`)."""

    def __init__(self, in_channels: int, config: DensePoseConfig) -> None:
        super().__init__()
        if config.deep_lab:
            self.add_module("ASPP", AtrousPyramid(in_channels))
        for index in range(config.num_conv):
            conv = Conv2d(
                in_channels, config.conv_dim, config.kernel_size, norm=config.norm, relu=True
            )
            self.add_module(f"body_conv_fcn{index + 1}", conv)
            in_channels = config.conv_dim
        self.out_channels = in_channels


class AtrousPyramid(nn.Module):
    """Convolutions of several dilations side by side (Chen et al. 2017, DeepLabv3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        atrous = (_with_norm(channels, 3, dilation=dilation) for dilation in ASPP_DILATIONS)
        whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_with_norm(channels, 1))
        self.convs = nn.ModuleList((_with_norm(channels, 1), *atrous, whole))
        projection = nn.Conv2d(len(self.convs) * channels, channels, 1, bias=False)
        self.project = nn.Sequential(projection, nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, C, S, S] -> the same shape."""
        branches = [conv(features).expand_as(features) for conv in self.convs]
        output: Tensor = self.project(torch.cat(branches, dim=1))
        return output


def _with_norm(channels: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    padding = kernel_size // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.GroupNorm(GROUP_NORM_GROUPS, channels),
        nn.ReLU(),
    )


class ChartPredictor(nn.Module):
    """Transposed convolutions to all charts, computed as one (`DensePoseChartPredictor`).

    Predicted confidences of U and V do not change them and are left out.
    """

    def __init__(self, in_channels: int, config: DensePoseConfig) -> None:
        super().__init__()
        parts = config.num_parts + 1
        self.names: tuple[str, ...] = CHARTS
        channels = [config.coarse_channels, parts, parts, parts]
        if config.confidence_floor is not None:
            self.names += CONFIDENCES
            channels += [1, 1]
        kernel_size = config.deconv_kernel
        self.padding = max(0, kernel_size // 2 - 1)
        for name, count in zip(self.names, channels, strict=True):
            layer = nn.ConvTranspose2d(
                in_channels, count, kernel_size, stride=2, padding=self.padding
            )
            self.add_module(f"{name}_lowres", layer)

    def forward(self, hidden: Tensor) -> Tensor:
        """Predict the charts of each region.

        Args:
            hidden: Float[N, D, S, S].

        Returns:
            Float32[N, C, 2S, 2S] before `upscale`: coarse logits, logits of the background and the
            parts, U and V of each of them, then, if configured, the confidences of the coarse and
            of the part logits before their softplus.
        """
        layers = [self.get_submodule(f"{name}_lowres") for name in self.names]
        weight = torch.cat([layer.get_parameter("weight") for layer in layers], dim=1)
        bias = torch.cat([layer.get_parameter("bias") for layer in layers])
        return F.conv_transpose2d(hidden, weight, bias, stride=2, padding=self.padding).float()
