"""Transformer decoders: from queries to classes and mask embeddings.

Cheng et al. 2021, MaskFormer; Cheng et al. 2022, Mask2Former.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.attention import MLP, MultiheadAttention
from d2serve.model.layers import Conv2d
from d2serve.model.linear import FullPrecisionLinear, Linear
from d2serve.model.mask_former_config import (
    EMBEDDING,
    ENCODED,
    MASKED_DECODER,
    NUM_SCALES,
    PixelDecoderConfig,
    QueryDecoderConfig,
    TransformerConfig,
)
from d2serve.model.pixel_decoder import DecodedPixels
from d2serve.model.transformer import Transformer, flatten_map


class _Residual(nn.Module):
    """A residual connection with a norm after it, or before the part that it surrounds."""

    def __init__(self, dim: int, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.norm = nn.LayerNorm(dim)

    def _before(self, rows: Tensor) -> Tensor:
        return self.norm(rows) if self.pre_norm else rows

    def _after(self, rows: Tensor, output: Tensor) -> Tensor:
        return rows + output if self.pre_norm else self.norm(rows + output)


class SelfAttentionLayer(_Residual):
    """Attention among the queries."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__(dim, config.pre_norm)
        self.self_attn = MultiheadAttention(dim, config.heads)

    def forward(self, queries: Tensor, embed: Tensor) -> Tensor:
        """Queries Float[N, Q, C] and their positions Float[Q, C] -> Float[N, Q, C]."""
        normed = self._before(queries)
        located = normed + embed
        return self._after(queries, self.self_attn(located, located, normed))


class CrossAttentionLayer(_Residual):
    """Attention to cells within the mask of each query."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__(dim, config.pre_norm)
        self.multihead_attn = MultiheadAttention(dim, config.heads)

    def forward(
        self, queries: Tensor, embed: Tensor, keys: Tensor, cells: Tensor, allowed: Tensor
    ) -> Tensor:
        """Queries Float[N, Q, C], their positions Float[Q, C], keys and cells Float[N, S, C] and
        masks Bool[N, Q, S] -> Float[N, Q, C]."""
        located = self._before(queries) + embed
        return self._after(queries, self.multihead_attn(located, keys, cells, allowed))


class FFNLayer(_Residual):
    """A feedforward network."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__(dim, config.pre_norm)
        self.linear1 = Linear(dim, config.ffn_dim, relu=True)
        self.linear2 = Linear(config.ffn_dim, dim)

    def forward(self, queries: Tensor) -> Tensor:
        """Float[N, Q, C] -> the same shape."""
        return self._after(queries, self.linear2(self.linear1(self._before(queries))))


class MaskedTransformerDecoder(nn.Module):
    """Queries attend to three maps in turn, each to the cells of the mask that it predicts so far
    (MultiScaleMaskedTransformerDecoder)."""

    def __init__(
        self, num_classes: int, pixels: PixelDecoderConfig, config: QueryDecoderConfig
    ) -> None:
        super().__init__()
        dim, transformer = config.hidden_dim, config.transformer
        layers = range(transformer.layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(dim, transformer) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(dim, transformer) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(FFNLayer(dim, transformer) for _ in layers)
        self.decoder_norm = nn.LayerNorm(dim)
        self.query_feat = nn.Embedding(config.num_queries, dim)
        self.query_embed = nn.Embedding(config.num_queries, dim)
        self.level_embed = nn.Embedding(NUM_SCALES, dim)
        self.input_proj = nn.ModuleList(
            _input_projection(pixels.conv_dim, config) for _ in range(NUM_SCALES)
        )
        self.class_embed = FullPrecisionLinear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, pixels.mask_dim)

    def forward(
        self, pixels: DecodedPixels, features: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Decode the queries.

        Returns:
            Class logits Float32[N, Q, K + 1] and mask embeddings Float[N, Q, mask_dim].
        """
        scales = [self._scale(index, each) for index, each in enumerate(pixels.scales)]
        # Scaling the embedding is scaling the masks, which are products with it.
        embeddings = [_scaled(pixels.embedding, each.shape[2:]) for each in pixels.scales]
        dtype = pixels.embedding.dtype
        queries = self.query_feat.weight.to(dtype).expand(len(pixels.embedding), -1, -1)
        embed = self.query_embed.weight.to(dtype)
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (attend_to_cells, attend_to_queries, feed_forward) in enumerate(layers):
            keys, cells = scales[index % NUM_SCALES]
            allowed = self._allowed(queries, embeddings[index % NUM_SCALES])
            queries = attend_to_cells(queries, embed, keys, cells, allowed)
            queries = feed_forward(attend_to_queries(queries, embed))
        decoded = self.decoder_norm(queries)
        return self.class_embed(decoded), self.mask_embed(decoded)

    def _scale(self, index: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """Float[N, C, H, W] -> keys and cells Float[N, H * W, C]."""
        cells, positions = flatten_map(self.input_proj[index](features))
        cells = cells + self.level_embed.weight[index].to(cells.dtype)
        return cells + positions, cells

    def _allowed(self, queries: Tensor, embedding: Tensor) -> Tensor:
        """Bool[N, Q, S]: the cells in each query's mask, or all cells if it is empty.

        Args:
            queries: Float[N, Q, C].
            embedding: Float[N, mask_dim, h, w] of the cells.
        """
        embeddings = self.mask_embed(self.decoder_norm(queries))
        inside = mask_logits(embeddings, embedding).flatten(2) >= 0
        return inside.logical_or_(~inside.any(dim=2, keepdim=True))


class StandardTransformerDecoder(nn.Module):
    """Queries attend to all cells of one map, with DETR's transformer."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        pixels: PixelDecoderConfig,
        config: QueryDecoderConfig,
    ) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.in_feature = config.in_feature
        self.transformer = Transformer(dim, config.encoder_layers, config.transformer)
        self.query_embed = nn.Embedding(config.num_queries, dim)
        self.input_proj = _input_projection(in_channels, config)
        self.class_embed = FullPrecisionLinear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, pixels.mask_dim)

    def forward(
        self, pixels: DecodedPixels, features: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `MaskedTransformerDecoder.forward`."""
        chosen = {ENCODED: pixels.encoded, EMBEDDING: pixels.embedding}
        source = chosen.get(self.in_feature)
        if source is None:
            source = features[self.in_feature]
        projected = self.input_proj(source)
        embed = self.query_embed.weight.to(projected.dtype)
        decoded = self.transformer(projected, embed)
        return self.class_embed(decoded), self.mask_embed(decoded)


QueryDecoder = MaskedTransformerDecoder | StandardTransformerDecoder


def build_query_decoder(
    num_classes: int,
    channels: Mapping[str, int],
    pixels: PixelDecoderConfig,
    config: QueryDecoderConfig,
) -> QueryDecoder:
    """Build the decoder that `config.name` selects.

    Args:
        num_classes: without "no object".
        channels: of the feature maps, by name.
        pixels: the pixel decoder.
        config: of the decoder.
    """
    if config.name == MASKED_DECODER:
        return MaskedTransformerDecoder(num_classes, pixels, config)
    in_channels = {**channels, ENCODED: pixels.conv_dim, EMBEDDING: pixels.mask_dim}
    return StandardTransformerDecoder(num_classes, in_channels[config.in_feature], pixels, config)


def _input_projection(in_channels: int, config: QueryDecoderConfig) -> nn.Module:
    if in_channels == config.hidden_dim and not config.project_input:
        return nn.Identity()
    return Conv2d(in_channels, config.hidden_dim, 1)


def _scaled(embedding: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Float[N, C, H, W] -> Float[N, C, h, w]."""
    return F.interpolate(embedding, size=tuple(size_hw), mode="bilinear", align_corners=False)


def mask_logits(embeddings: Tensor, pixels: Tensor) -> Tensor:
    """Products of Float[N, Q, C] queries and Float[N, C, H, W] pixels -> Float[N, Q, H, W]."""
    # Where channels are last in memory, pixels are rows and nothing is copied.
    rows = pixels.permute(0, 2, 3, 1).flatten(1, 2)
    return (embeddings @ rows.transpose(1, 2)).unflatten(2, pixels.shape[2:])
