"""MaskFormer and Mask2Former: a class and a mask for each of a fixed number of queries.

Cheng et al. 2021, Per-Pixel Classification is Not All You Need for Semantic Segmentation; Cheng et
al. 2022, Masked-attention Mask Transformer for Universal Image Segmentation.
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import Backbone
from d2serve.model.mask_former_config import MaskFormerConfig
from d2serve.model.network import Network
from d2serve.model.pixel_decoder import build_pixel_decoder
from d2serve.model.preprocessing import padded_size
from d2serve.model.structures import ModelOutput, QueryOutput, SizeHW, no_instances
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

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Predict classes and masks from feature maps Float[N, C, H/s, W/s] by name.

        Returns:
            Class logits Float32[N, Q, K + 1] and mask logits Float32[N, Q, h, w].
        """
        pixels = self.pixel_decoder(features)
        class_logits, embeddings = self.predictor(pixels, features)
        return class_logits, mask_logits(embeddings, pixels.embedding).float()


class MaskFormer(Network):
    """Queries only; instances and maps are selected from them later, see `QueryOutput`."""

    def __init__(self, config: ModelConfig, family: MaskFormerConfig) -> None:
        super().__init__(config)
        self.backbone.size_divisibility = family.size_divisibility
        self.sem_seg_head = MaskFormerHead(self.backbone, family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        class_logits, masks = self.sem_seg_head(features)
        boxes = [None] * len(masks)
        divisibility = self.backbone.size_divisibility
        return query_outputs(class_logits, masks, boxes, divisibility, sizes_hw, original_sizes_hw)


def query_outputs(
    class_logits: Tensor,
    masks: Tensor,
    boxes: Iterable[Tensor | None],
    size_divisibility: int,
    sizes_hw: Sequence[SizeHW],
    original_sizes_hw: Sequence[SizeHW],
) -> list[ModelOutput]:
    """The queries of each of N images, see `QueryOutput`.

    Args:
        class_logits: Float[N, Q, K].
        masks: Float[N, Q, h, w] logits.
        boxes: Float32[Q, 4] each, or None.
        size_divisibility: sides of padded images are multiples of it.
        sizes_hw: heights and widths of the resized images.
        original_sizes_hw: heights and widths of the original images.
    """
    heights, widths = zip(*sizes_hw, strict=True)
    padded_hw = padded_size((max(heights), max(widths)), size_divisibility)
    none = no_instances(masks.device)
    rows = zip(class_logits, masks, sizes_hw, original_sizes_hw, boxes, strict=True)
    return [
        ModelOutput(none, queries=QueryOutput(logits, image, padded_hw, size, original, own))
        for logits, image, size, original, own in rows
    ]
