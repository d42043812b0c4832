"""Semantic segmentation on a pyramid (Kirillov et al. 2019, Panoptic FPN; `detectron2.modeling.meta_arch.semantic_seg`)."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import ModelConfig, SemanticConfig
from d2serve.model.fpn import Backbone
from d2serve.model.layers import Conv2d
from d2serve.model.network import Network
from d2serve.model.structures import Found, SizeHW, no_instances

# What is scaled to the original picture at once, so that 50 classes of a large one fit memory.
PIXELS_AT_ONCE = 1_000_000


class SemanticHead(nn.Module):
    """Scales every level to one stride by convolutions and upsampling, adds them up and predicts a
    class for every cell (`SemSegFPNHead`)."""

    def __init__(self, backbone: Backbone, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        for name in config.in_features:
            self.add_module(name, _scale_head(backbone, name, config))
        self.predictor = Conv2d(config.conv_dim, config.num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """By name Float[N, C, H/s, W/s] -> logits Float[N, K, H, W] at the input's pixels."""
        first, *others = (
            self.get_submodule(name)(features[name]) for name in self.config.in_features
        )
        logits = self.predictor(sum(others, first)).float()
        return F.interpolate(
            logits, scale_factor=self.config.common_stride, mode="bilinear", align_corners=False
        )


class SemanticSegmentor(Network):
    """A class for every pixel, and no instances."""

    def __init__(self, config: ModelConfig, family: SemanticConfig) -> None:
        super().__init__(config)
        self.sem_seg_head = SemanticHead(self.backbone, family)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        logits = self.sem_seg_head(features)
        return [
            Found(no_instances(logits.device), classes_of_pixels(*image))
            for image in zip(logits, sizes_hw, original_sizes_hw, strict=True)
        ]


def classes_of_pixels(logits: Tensor, size_hw: SizeHW, original_hw: SizeHW) -> Tensor:
    """The best class of every pixel of the original picture, Int32[H, W]
    (`detectron2.modeling.postprocessing.sem_seg_postprocess`).

    Args:
        logits: Float[K, H', W'] at the input's pixels, padding included.
        size_hw: the input's height and width, padding apart.
        original_hw: the original picture's.
    """
    height, width = size_hw
    image = logits[:, :height, :width].float()
    strips = [strip.argmax(dim=0).to(torch.int32) for strip in _scaled_strips(image, original_hw)]
    return torch.cat(strips)


def _scaled_strips(image: Tensor, original_hw: SizeHW) -> Iterator[Tensor]:
    """Float[K, h, W] of some rows at a time of Float[K, H', W'], scaled bilinearly."""
    height, width = original_hw
    source_height = image.shape[1]
    at_once = max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, at_once):
        rows = torch.arange(top, min(top + at_once, height), device=image.device)
        source = ((rows + 0.5) * (source_height / height) - 0.5).clamp(min=0)
        above = source.long()
        below = (above + 1).clamp(max=source_height - 1)
        weight = (source - above)[:, None]
        strip = image[:, above] * (1 - weight) + image[:, below] * weight
        yield F.interpolate(
            strip[None], size=(len(rows), width), mode="bilinear", align_corners=False
        )[0]


def _scale_head(backbone: Backbone, name: str, config: SemanticConfig) -> nn.Sequential:
    stride, in_channels = backbone.strides[name], backbone.channels[name]
    doublings = int(math.log2(stride) - math.log2(config.common_stride))
    head = nn.Sequential()
    for _ in range(max(1, doublings)):
        head.append(Conv2d(in_channels, config.conv_dim, 3, norm=config.norm, relu=True))
        if stride != config.common_stride:
            head.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        in_channels = config.conv_dim
    return head
