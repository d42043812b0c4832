"""MaskFormer and Mask2Former: a class and a mask for each of a fixed number of queries.

Cheng et al. 2021, Per-Pixel Classification is Not All You Need for Semantic Segmentation; Cheng et
al. 2022, Masked-attention Mask Transformer for Universal Image Segmentation.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import Backbone
from d2serve.model.mask_former_config import MaskFormerConfig
from d2serve.model.pixel_decoder import build_pixel_decoder
from d2serve.model.query_network import QueryNetwork
from d2serve.model.transformer_decoder import build_query_decoder, mask_logits


class MaskFormerHead(nn.Module):
    """Embeddings of pixels and queries, whose products are the masks."""

    def __init__(self, backbone: Backbone, config: MaskFormerConfig) -> None:
        super().__init__()
        channels = backbone.channels
        self.pixel_decoder = build_pixel_decoder(channels, config.pixel_decoder)
        self.predictor = build_query_decoder(
            config.inference.num_classes, channels, config.pixel_decoder, config.decoder
        )

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, None]:
        """Predict classes and masks from feature maps Float[N, C, H/s, W/s] by name.

        Returns:
            Class logits Float32[N, Q, K + 1], mask logits Float32[N, Q, h, w], and no boxes.
        """
        pixels = self.pixel_decoder(features)
        class_logits, embeddings = self.predictor(pixels, features)
        return class_logits, mask_logits(embeddings, pixels.embedding).float(), None


class MaskFormer(QueryNetwork):
    """Queries without boxes."""

    def __init__(self, config: ModelConfig, family: MaskFormerConfig) -> None:
        super().__init__(
            config, family.size_divisibility, lambda backbone: MaskFormerHead(backbone, family)
        )
