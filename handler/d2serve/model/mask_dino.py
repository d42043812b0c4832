"""Mask DINO: a class, a box and a mask for each of a fixed number of queries.

Li et al. 2023, Mask DINO: Towards A Unified Transformer-based Framework for Object Detection and
Segmentation.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.deformable_encoder import DeformableEncoder
from d2serve.model.fpn import Backbone
from d2serve.model.layers import GROUP_NORM_GROUPS, Conv2d
from d2serve.model.mask_dino_config import BoxPixelDecoderConfig, MaskDINOConfig
from d2serve.model.mask_dino_decoder import MaskDINODecoder
from d2serve.model.query_network import QueryNetwork
from d2serve.model.transformer_decoder import mask_logits


class MaskDINOEncoder(nn.Module):
    """The pixel decoder: a deformable encoder, and finer maps added to its finest output."""

    def __init__(self, channels: Mapping[str, int], config: BoxPixelDecoderConfig) -> None:
        super().__init__()
        dim = config.conv_dim
        self.finest_first = config.finest_first
        self.coarsest = config.encoded_features[-1]
        self.encoded_features = config.encoded_features[:: 1 if config.finest_first else -1]
        self.input_proj = nn.ModuleList(
            nn.Sequential(Conv2d(channels[name], dim, 1), nn.GroupNorm(GROUP_NORM_GROUPS, dim))
            for name in self.encoded_features
        )
        for index in range(config.extra_levels):
            in_channels = dim if index else channels[self.coarsest]
            convolution = Conv2d(in_channels, dim, 3, stride=2)
            self.input_proj.append(nn.Sequential(convolution, nn.GroupNorm(GROUP_NORM_GROUPS, dim)))
        self.transformer = DeformableEncoder(
            dim, config.levels, config.layers, config.heads, config.ffn_dim
        )
        self.added_features = config.in_features[: config.fpn_levels]
        for index, name in enumerate(self.added_features, start=1):
            self.add_module(f"adapter_{index}", Conv2d(channels[name], dim, 1, norm=config.norm))
            self.add_module(f"layer_{index}", Conv2d(dim, dim, 3, norm=config.norm, relu=True))
        self.mask_features = Conv2d(dim, config.mask_dim, 1)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Decode feature maps Float[N, C, H/s, W/s] by name.

        Returns:
            The encoder's maps Float[N, C, h, w], finest first or coarsest first, and the embedding
            Float[N, mask_dim, H/s, W/s] of the pixels of the finest feature map.
        """
        maps = self._encoded(features)
        finest = maps[0 if self.finest_first else -1]
        pixels = finest
        for index in range(len(self.added_features), 0, -1):
            lateral = self.get_submodule(f"adapter_{index}")(
                features[self.added_features[index - 1]]
            )
            source = finest if self.finest_first else pixels
            lateral += F.interpolate(
                source, size=lateral.shape[2:], mode="bilinear", align_corners=False
            )
            pixels = self.get_submodule(f"layer_{index}")(lateral)
        return maps, self.mask_features(pixels)

    def _encoded(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The encoder's maps."""
        count = len(self.encoded_features)
        maps = [
            project(features[name])
            for project, name in zip(self.input_proj[:count], self.encoded_features, strict=True)
        ]
        coarser, source = [], features[self.coarsest]
        for project in self.input_proj[count:]:
            source = project(source)
            coarser.append(source)
        # The project's networks have learned positions of the coarser maps in the other order.
        if self.finest_first:
            return self.transformer([*maps, *coarser[::-1]], [*maps, *coarser])
        return self.transformer([*coarser[::-1], *maps], [*coarser, *maps])


class MaskDINOHead(nn.Module):
    """Embeddings of pixels and queries, whose products are the masks, and the queries' boxes."""

    def __init__(self, backbone: Backbone, config: MaskDINOConfig) -> None:
        super().__init__()
        pixels, inference = config.pixel_decoder, config.inference
        self.pixel_decoder = MaskDINOEncoder(backbone.channels, pixels)
        self.predictor = MaskDINODecoder(
            inference.num_classes + inference.has_no_object, pixels, config.decoder
        )

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Predict classes, masks and boxes from feature maps Float[N, C, H/s, W/s] by name.

        Returns:
            Class logits Float32[N, Q, K], mask logits Float32[N, Q, h, w] and boxes
            Float32[N, Q, 4], see `QueryOutput`.
        """
        maps, embedding = self.pixel_decoder(features)
        class_logits, embeddings, boxes = self.predictor(maps, embedding)
        return class_logits, mask_logits(embeddings, embedding).float(), boxes


class MaskDINO(QueryNetwork):
    """Queries with boxes."""

    def __init__(self, config: ModelConfig, family: MaskDINOConfig) -> None:
        super().__init__(
            config, family.size_divisibility, lambda backbone: MaskDINOHead(backbone, family)
        )
