"""Pixel decoders: from feature maps to an embedding of each pixel.

Cheng et al. 2021, MaskFormer; Cheng et al. 2022, Mask2Former.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.deformable_encoder import DeformableEncoder
from d2serve.model.layers import GROUP_NORM_GROUPS, Conv2d
from d2serve.model.mask_former_config import (
    NUM_SCALES,
    DeformableEncoderConfig,
    PixelDecoderConfig,
)
from d2serve.model.transformer import TransformerEncoder


@dataclass(frozen=True)
class DecodedPixels:
    """Output of a pixel decoder.

    Attributes:
        embedding: Float[N, mask_dim, H, W] at the finest stride.
        encoded: Float[N, C, h, w] the encoder's output for the coarsest map; None without an
            encoder.
        scales: Float[N, C, h, w] the coarsest maps, coarsest first, at most NUM_SCALES.
    """

    embedding: Tensor
    encoded: Tensor | None
    scales: Sequence[Tensor]


class FPNPixelDecoder(nn.Module):
    """A pyramid, optionally with a transformer on the coarsest map (BasePixelDecoder,
    TransformerEncoderPixelDecoder)."""

    def __init__(self, channels: Mapping[str, int], config: PixelDecoderConfig) -> None:
        super().__init__()
        self.in_features = config.in_features
        dim, norm, encoder = config.conv_dim, config.norm, config.encoder
        assert not isinstance(encoder, DeformableEncoderConfig)
        *finer, coarsest = config.in_features
        for index, name in enumerate(finer, start=1):
            self.add_module(f"adapter_{index}", Conv2d(channels[name], dim, 1, norm=norm))
            self.add_module(f"layer_{index}", Conv2d(dim, dim, 3, norm=norm, relu=True))
        in_channels = channels[coarsest]
        self.transformer: TransformerEncoder | None = None
        if encoder is not None:
            self.input_proj = Conv2d(in_channels, dim, 1)
            self.transformer = TransformerEncoder(dim, encoder)
            in_channels = dim
        self.add_module(
            f"layer_{len(finer) + 1}", Conv2d(in_channels, dim, 3, norm=norm, relu=True)
        )
        self.mask_features = Conv2d(dim, config.mask_dim, 3)

    def forward(self, features: Mapping[str, Tensor]) -> DecodedPixels:
        """Decode feature maps Float[N, C, H/s, W/s] by name."""
        *finer, coarsest = self.in_features
        pixels, encoded = features[coarsest], None
        if self.transformer is not None:
            pixels = encoded = self.transformer(self.input_proj(pixels))
        pixels = self.get_submodule(f"layer_{len(self.in_features)}")(pixels)
        maps = [pixels]
        for index in range(len(finer), 0, -1):
            lateral = self.get_submodule(f"adapter_{index}")(features[finer[index - 1]])
            lateral += F.interpolate(pixels, size=lateral.shape[2:], mode="nearest")
            pixels = self.get_submodule(f"layer_{index}")(lateral)
            maps = [*maps, pixels][:NUM_SCALES]
        return DecodedPixels(self.mask_features(pixels), encoded, maps)


class MSDeformAttnPixelDecoder(nn.Module):
    """A deformable encoder over several maps, and finer maps added to its output."""

    def __init__(self, channels: Mapping[str, int], config: PixelDecoderConfig) -> None:
        super().__init__()
        encoder, dim = config.encoder, config.conv_dim
        assert isinstance(encoder, DeformableEncoderConfig)
        # Coarsest first, as the names of the layers count.
        self.encoded_features = encoder.in_features[::-1]
        self.input_proj = nn.ModuleList(
            nn.Sequential(Conv2d(channels[name], dim, 1), nn.GroupNorm(GROUP_NORM_GROUPS, dim))
            for name in self.encoded_features
        )
        self.transformer = DeformableEncoder(
            dim, len(self.encoded_features), encoder.layers, encoder.heads
        )
        self.added_features = config.in_features[: encoder.fpn_levels]
        for index, name in enumerate(self.added_features, start=1):
            self.add_module(f"adapter_{index}", Conv2d(channels[name], dim, 1, norm=config.norm))
            self.add_module(f"layer_{index}", Conv2d(dim, dim, 3, norm=config.norm, relu=True))
        self.mask_features = Conv2d(dim, config.mask_dim, 1)

    def forward(self, features: Mapping[str, Tensor]) -> DecodedPixels:
        """Decode feature maps Float[N, C, H/s, W/s] by name."""
        maps = self.transformer(
            [
                project(features[name])
                for project, name in zip(self.input_proj, self.encoded_features, strict=True)
            ]
        )
        encoded, pixels = maps[0], maps[-1]
        maps = maps[:NUM_SCALES]
        for index in range(len(self.added_features), 0, -1):
            lateral = self.get_submodule(f"adapter_{index}")(
                features[self.added_features[index - 1]]
            )
            lateral += F.interpolate(
                pixels, size=lateral.shape[2:], mode="bilinear", align_corners=False
            )
            pixels = self.get_submodule(f"layer_{index}")(lateral)
            maps = [*maps, pixels][:NUM_SCALES]
        return DecodedPixels(self.mask_features(pixels), encoded, maps)


PixelDecoder = FPNPixelDecoder | MSDeformAttnPixelDecoder


def build_pixel_decoder(channels: Mapping[str, int], config: PixelDecoderConfig) -> PixelDecoder:
    """Build the decoder that the type of `config.encoder` selects.

    Args:
        channels: of the feature maps, by name.
        config: of the decoder.
    """
    if isinstance(config.encoder, DeformableEncoderConfig):
        return MSDeformAttnPixelDecoder(channels, config)
    return FPNPixelDecoder(channels, config)
