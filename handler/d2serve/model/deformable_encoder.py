"""Encoder layers of deformable attention (Zhu et al. 2021, Deformable DETR)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from d2serve.model.attention import sine_positions
from d2serve.model.deformable_attention import MSDeformAttn, SamplingGrid, SizeHW, sampling_grid
from d2serve.model.linear import Linear

# Of Mask2Former, independent of MODEL.MASK_FORMER.DIM_FEEDFORWARD.
FFN_DIM = 1024


class DeformableEncoderLayer(nn.Module):
    """Deformable attention and a feedforward network, each with a residual and a norm."""

    def __init__(self, dim: int, levels: int, heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, levels, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, ffn_dim, relu=True)
        self.linear2 = Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, cells: Tensor, positions: Tensor, grid: SamplingGrid) -> None:
        """Update Float[N, S, C] cells of all maps in place; positions Float32[S, C]."""
        attention = self.self_attn.join()
        for image in cells:
            rows = attention.values(image)
            for chunk in grid.chunks():
                part = image[chunk]
                attended = attention(part + positions[chunk], rows, grid, chunk)
                part = self.norm1(attended.add_(part))
                image[chunk] = self.norm2(self.linear2.add(self.linear1(part), part))


class _Layers(nn.Module):
    """The module whose name is between the encoder's and that of its layers."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DeformableEncoder(nn.Module):
    """A stack of layers over the cells of several maps (MSDeformAttnTransformerEncoderOnly)."""

    def __init__(
        self, dim: int, levels: int, layers: int, heads: int, ffn_dim: int = FFN_DIM
    ) -> None:
        super().__init__()
        self.heads = heads
        self.level_embed = nn.Parameter(torch.zeros(levels, dim))
        self.encoder = _Layers(
            [DeformableEncoderLayer(dim, levels, heads, ffn_dim) for _ in range(layers)]
        )

    def forward(
        self, maps: Sequence[Tensor], located: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Float[N, C, H, W] each -> the same shapes.

        Args:
            maps: the maps.
            located: the maps in the order in which their cells get positions; by default the same.
        """
        sizes = [(each.shape[2], each.shape[3]) for each in maps]
        cells = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
        order = [(each.shape[2], each.shape[3]) for each in (maps if located is None else located)]
        positions = self._positions(order, cells.shape[2])
        grid = sampling_grid(sizes, self.heads, cells.device)
        for layer in self.encoder.layers:
            layer(cells, positions, grid)
        parts = cells.split([height * width for height, width in sizes], dim=1)
        return [
            part.unflatten(1, size).permute(0, 3, 1, 2)
            for part, size in zip(parts, sizes, strict=True)
        ]

    def _positions(self, sizes_hw: Sequence[SizeHW], dim: int) -> Tensor:
        """Float32[S, dim]: the position and the level of each cell."""
        embed = self.level_embed.float()
        return torch.cat(
            [
                sine_positions(size, dim, embed.device) + level
                for size, level in zip(sizes_hw, embed, strict=True)
            ]
        )
