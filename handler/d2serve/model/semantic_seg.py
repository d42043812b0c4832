"""Semantic segmentation on a pyramid (`detectron2.modeling.meta_arch.semantic_seg`).

Kirillov et al. 2019, Panoptic FPN.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import SemanticConfig
from d2serve.model.layers import Conv2d
from d2serve.model.network import Network
from d2serve.model.structures import ModelOutput, SizeHW, no_instances

# Pixels of the original image that are scaled at a time, to bound the memory of all their classes.
MAX_PIXELS = 1_000_000


class PyramidDecoder(nn.Module):
    """Sums all levels, upsampled to a common stride, and applies a 1x1 convolution."""

    def __init__(self, backbone: Backbone, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        for name in config.in_features:
            self.add_module(name, _level_head(backbone, name, config))
        self.predictor = Conv2d(config.conv_dim, config.num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """By name Float[N, C, H/s, W/s] -> Float[N, K, H/t, W/t] of the common stride t."""
        first, *rest = (
            self.get_submodule(name)(features[name]) for name in self.config.in_features
        )
        output: Tensor = self.predictor(sum(rest, first))
        return output


class SemanticHead(PyramidDecoder):
    """Predicts the class of each pixel (`SemSegFPNHead`)."""

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """By name Float[N, C, H/s, W/s] -> logits Float32[N, K, H, W] for each input pixel."""
        logits = super().forward(features).float()
        return F.interpolate(
            logits, scale_factor=self.config.common_stride, mode="bilinear", align_corners=False
        )


class SemanticSegmentor(Network):
    """Semantic segmentation only: a class for every pixel, without instances."""

    def __init__(self, config: ModelConfig, family: SemanticConfig) -> None:
        super().__init__(config)
        self.sem_seg_head = SemanticHead(self.backbone, family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        logits = self.sem_seg_head(features)
        return [
            ModelOutput(no_instances(logits.device), pixel_classes(*image))
            for image in zip(logits, sizes_hw, original_sizes_hw, strict=True)
        ]


def pixel_classes(logits: Tensor, size_hw: SizeHW, original_hw: SizeHW) -> Tensor:
    """Int32[H, W]: the best class of every pixel of the original image
    (`detectron2.modeling.postprocessing.sem_seg_postprocess`).

    Args:
        logits: Float[K, H', W'] for each input pixel, padding included.
        size_hw: height and width of the resized image, without padding.
        original_hw: height and width of the original image.
    """
    height, width = size_hw
    image = logits[:, :height, :width].float()
    strips = [strip.argmax(dim=0).to(torch.int32) for strip in _scaled_strips(image, original_hw)]
    return torch.cat(strips)


def _scaled_strips(image: Tensor, original_hw: SizeHW) -> Iterator[Tensor]:
    """Scale Float[K, H', W'] bilinearly, as strips Float[K, h, W] of a few rows each."""
    height, width = original_hw
    source_height = image.shape[1]
    strip_height = max(1, MAX_PIXELS // width)
    for top in range(0, height, strip_height):
        rows = torch.arange(top, min(top + strip_height, height), device=image.device)
        source = ((rows + 0.5) * (source_height / height) - 0.5).clamp(min=0)
        above = source.long()
        below = (above + 1).clamp(max=source_height - 1)
        weight = (source - above)[:, None]
        strip = image[:, above] * (1 - weight) + image[:, below] * weight
        yield F.interpolate(
            strip[None], size=(len(rows), width), mode="bilinear", align_corners=False
        )[0]


def _level_head(backbone: Backbone, name: str, config: SemanticConfig) -> nn.Sequential:
    stride, in_channels = backbone.strides[name], backbone.channels[name]
    doublings = int(math.log2(stride) - math.log2(config.common_stride))
    head = nn.Sequential()
    for _ in range(max(1, doublings)):
        head.append(Conv2d(in_channels, config.conv_dim, 3, norm=config.norm, relu=True))
        if stride != config.common_stride:
            head.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        in_channels = config.conv_dim
    return head
