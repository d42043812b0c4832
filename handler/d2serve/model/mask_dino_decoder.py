"""Mask DINO's decoder: queries with boxes that each layer refines.

Zhang et al. 2022, DINO; Li et al. 2023, Mask DINO.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from d2serve.model.attention import MLP, MultiheadAttention, sine_waves
from d2serve.model.deformable_attention import MSDeformAttn, SampledMaps, SizeHW, sampled_maps
from d2serve.model.layers import Conv2d
from d2serve.model.linear import FullPrecisionLinear, Linear
from d2serve.model.mask_dino_config import (
    PREDICTED_BOXES,
    TIGHT_BOXES,
    BoxPixelDecoderConfig,
    BoxQueryDecoderConfig,
)
from d2serve.model.transformer_decoder import mask_logits

# Independent of MODEL.MaskDINO.NHEADS, which is for the encoder.
HEADS = 8
# Side of the box around a cell of the first map, as a share of the image, and the range of
# positions whose cells are candidates.
CELL_BOX, LOWEST, HIGHEST = 0.05, 0.01, 0.99
# Probabilities are limited before their logits are computed.
EPSILON = 1e-5
# Ends of a mask without a pixel that is at no place.
BEYOND = 1e8
# Masks that are computed together, few enough for a processor's cache.
MASKS_TOGETHER = 32


class DeformableDecoderLayer(nn.Module):
    """Attention among the queries, then to the maps at each query's box, and a feedforward
    network."""

    def __init__(self, dim: int, levels: int, ffn_dim: int) -> None:
        super().__init__()
        self.cross_attn = MSDeformAttn(dim, levels, HEADS)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = MultiheadAttention(dim, HEADS)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, ffn_dim, relu=True)
        self.linear2 = Linear(ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, positions: Tensor, boxes: Tensor, cells: Tensor, maps: SampledMaps
    ) -> Tensor:
        """Update the queries.

        Args:
            queries, positions: Float[N, Q, C].
            boxes: Float32[N, Q, 4], see `QueryOutput`.
            cells: Float[N, S, C] of all maps.
            maps: the maps.

        Returns:
            Float[N, Q, C].
        """
        located = queries + positions
        queries = self.norm2(queries + self.self_attn(located, located, queries))
        located, attention = queries + positions, self.cross_attn.join()
        attended = [
            attention.at_boxes(own, own_boxes, attention.values(image), maps)
            for own, own_boxes, image in zip(located, boxes, cells, strict=True)
        ]
        queries = self.norm1(queries + torch.stack(attended))
        return self.norm3(queries + self.linear2(self.linear1(queries)))


class _Decoder(nn.Module):
    """The modules that checkpoints have under this name."""

    def __init__(self, dim: int, levels: int, config: BoxQueryDecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(dim, levels, config.ffn_dim) for _ in range(config.layers)
        )
        self.ref_point_head = MLP(dim, dim, in_dim=2 * dim, layers=2)


class MaskDINODecoder(nn.Module):
    """Queries from the best cells, or learned ones, with their boxes.

    Scores of classes, positions of boxes and their changes are float32 in any case.
    """

    def __init__(
        self, num_scores: int, pixels: BoxPixelDecoderConfig, config: BoxQueryDecoderConfig
    ) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.config = config
        if config.two_stage:
            self.enc_output = Linear(dim, dim)
            self.enc_output_norm = nn.LayerNorm(dim)
        else:
            self.query_embed = nn.Embedding(config.num_queries, 4)
        if config.learned_content or not config.two_stage:
            self.query_feat = nn.Embedding(config.num_queries, dim)
        is_projected = config.project_input or pixels.conv_dim != dim
        self.input_proj = nn.ModuleList(
            Conv2d(pixels.conv_dim, dim, 1) if is_projected else nn.Identity()
            for _ in range(pixels.levels)
        )
        self.class_embed = FullPrecisionLinear(dim, num_scores)
        self.mask_embed = MLP(dim, pixels.mask_dim)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder = _Decoder(dim, pixels.levels, config)
        self._bbox_embed = MLP(dim, 4, kind=FullPrecisionLinear)

    def forward(
        self, features: Sequence[Tensor], embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the queries.

        Args:
            features: Float[N, C, h, w], as the encoder returns them.
            embedding: Float[N, mask_dim, H, W] of the pixels.

        Returns:
            Class logits Float32[N, Q, K], mask embeddings Float[N, Q, mask_dim] and boxes
            Float32[N, Q, 4], see `QueryOutput`.
        """
        projected = [
            project(each) for project, each in zip(self.input_proj, features, strict=True)
        ][::-1]
        sizes = [(each.shape[2], each.shape[3]) for each in projected]
        cells = torch.cat([each.flatten(2).transpose(1, 2) for each in projected], dim=1)
        if self.config.two_stage:
            queries, boxes = self._selected(cells, sizes, embedding)
        else:
            queries = self._learned(self.query_feat, cells)
            boxes = self.query_embed.weight.expand(len(cells), -1, -1).sigmoid()
        queries, boxes = self._refined(queries, boxes, cells, sizes)
        # The norm of the last layer's output, and that of each prediction.
        decoded = self.decoder_norm(self.decoder_norm(queries))
        return self.class_embed(decoded), self.mask_embed(decoded), boxes

    def _learned(self, queries: nn.Embedding, cells: Tensor) -> Tensor:
        return queries.weight.to(cells.dtype).expand(len(cells), -1, -1)

    def _selected(
        self, cells: Tensor, sizes_hw: Sequence[SizeHW], embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The queries Float[N, Q, C] and boxes Float32[N, Q, 4] of the cells with the best scores;
        fewer queries if there are fewer cells."""
        priors = cell_boxes(sizes_hw, cells.device)
        is_outside = priors.isinf().any(dim=1, keepdim=True)
        candidates = self.enc_output_norm(self.enc_output(cells.masked_fill(is_outside, 0)))
        scores = self.class_embed(candidates).amax(dim=2)
        count = min(self.config.num_queries, scores.shape[1])
        chosen = scores.topk(count, dim=1).indices
        queries = candidates.gather(1, chosen[:, :, None].expand(-1, -1, candidates.shape[2]))
        if self.config.initial_boxes == PREDICTED_BOXES:
            boxes = (self._bbox_embed(queries) + priors[chosen]).sigmoid()
        else:
            boxes = self._boxes_of_masks(queries, embedding)
        if self.config.learned_content:
            queries = self._learned(self.query_feat, cells)[:, :count]
        return queries, boxes

    def _boxes_of_masks(self, queries: Tensor, embedding: Tensor) -> Tensor:
        """Float32[N, Q, 4]: the boxes of the masks that the queries predict."""
        embeddings = self.mask_embed(self.decoder_norm(queries))
        is_tight = self.config.initial_boxes == TIGHT_BOXES
        boxes = [
            mask_boxes(mask_logits(some, embedding) > 0, is_tight)
            for some in embeddings.split(MASKS_TOGETHER, dim=1)
        ]
        return inverse_sigmoid(torch.cat(boxes, dim=1)).sigmoid()

    def _refined(
        self, queries: Tensor, boxes: Tensor, cells: Tensor, sizes_hw: Sequence[SizeHW]
    ) -> tuple[Tensor, Tensor]:
        """The queries and boxes after all layers."""
        maps = sampled_maps(sizes_hw, HEADS, cells.device)
        layers = self.decoder.layers
        for index, layer in enumerate(layers, start=1):
            waves = sine_boxes(boxes, queries.shape[2]).to(queries.dtype)
            queries = layer(queries, self.decoder.ref_point_head(waves), boxes, cells, maps)
            # Only the last boxes, which are those of the output, follow from normalized queries.
            source = self.decoder_norm(queries) if index == len(layers) else queries
            boxes = (self._bbox_embed(source) + inverse_sigmoid(boxes)).sigmoid()
        return queries, boxes


def cell_boxes(sizes_hw: Sequence[SizeHW], device: torch.device) -> Tensor:
    """Float32[S, 4]: logits of the box around each cell of all maps, twice as large in each map as
    in the one before; infinite for a cell at the border of the image."""
    boxes = []
    for level, size_hw in enumerate(sizes_hw):
        y, x = ((torch.arange(size, device=device) + 0.5) / size for size in size_hw)
        centres = torch.cartesian_prod(y, x).flip(1)
        sides = torch.full_like(centres, CELL_BOX * 2**level)
        boxes.append(torch.cat((centres, sides), dim=1))
    shares = torch.cat(boxes)
    is_inside = ((shares > LOWEST) & (shares < HIGHEST)).all(dim=1, keepdim=True)
    return (shares / (1 - shares)).log().masked_fill(~is_inside, torch.inf)


def mask_boxes(is_set: Tensor, is_tight: bool) -> Tensor:
    """The boxes around the set pixels of masks.

    Args:
        is_set: Bool[N, Q, h, w].
        is_tight: whether a box ends behind its last pixel, or at the number of that pixel.

    Returns:
        Float32[N, Q, 4] centre x and y, width and height as shares of w and h; for a mask without a
        pixel 0, or unless `is_tight` far outside with a negative size.
    """
    width, height = is_set.shape[3], is_set.shape[2]
    left, right = _ends(is_set.any(dim=2), is_tight)
    top, bottom = _ends(is_set.any(dim=3), is_tight)
    return torch.stack(
        (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        ),
        dim=-1,
    )


def _ends(is_set: Tensor, is_tight: bool) -> tuple[Tensor, Tensor]:
    """Float32[N, Q] start and end of the set places in Bool[N, Q, L]."""
    any_set, places = is_set.any(dim=2), is_set.byte()
    first = places.argmax(dim=2).float()
    last = is_set.shape[2] - 1 - places.flip(2).argmax(dim=2).float()
    empty = 0.0 if is_tight else BEYOND
    return first.where(any_set, empty), (last + is_tight).where(any_set, 0.0)


def inverse_sigmoid(shares: Tensor) -> Tensor:
    """Logits of Float32[...], limited to EPSILON and 1 - EPSILON."""
    shares = shares.clamp(0, 1)
    return (shares.clamp(min=EPSILON) / (1 - shares).clamp(min=EPSILON)).log()


def sine_boxes(boxes: Tensor, dim: int) -> Tensor:
    """Float32[..., 4] boxes -> Float32[..., 2 * dim]: sines and cosines of y, x, width, height."""
    x, y, width, height = boxes.unbind(-1)
    return torch.cat([sine_waves(side, dim // 2) for side in (y, x, width, height)], dim=-1)
