"""Self-attention on a grid with relative positions (Li et al. 2022, MViTv2, section 4.1;
`detectron2.modeling.backbone.vit.Attention`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GridAttention(nn.Module):
    """Every cell of a grid looks at every other; how far apart they are counts in each direction
    by itself."""

    def __init__(
        self, dim: int, heads: int, *, bias: bool, relative_size_hw: tuple[int, int] | None
    ) -> None:
        """`relative_size_hw` is the grid that the relative positions are trained for, None where
        there are none."""
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.relative = relative_size_hw is not None
        if relative_size_hw is not None:
            height, width = relative_size_hw
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, dim // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, dim // heads))

    def forward(self, grid: Tensor) -> Tensor:
        """Float[N, H, W, C] -> the same shape."""
        images, height, width, _ = grid.shape
        qkv = self.qkv(grid).view(images, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self._bias(query, height, width) if self.relative else None
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=self.scale
        )
        output: Tensor = self.proj(attended.transpose(1, 2).reshape(grid.shape))
        return output

    def _bias(self, query: Tensor, height: int, width: int) -> Tensor:
        """Float[N, heads, H * W, C] -> what each pair's distance adds, Float[N, heads, H * W,
        H * W]."""
        cells = query.unflatten(2, (height, width))
        rows = _by_distance(self.rel_pos_h, height)
        columns = _by_distance(self.rel_pos_w, width)
        of_rows = torch.einsum("nahwc,hkc->nahwk", cells, rows)
        of_columns = torch.einsum("nahwc,wkc->nahwk", cells, columns)
        bias = of_rows[..., :, None] + of_columns[..., None, :]
        return bias.flatten(4).flatten(2, 3)


def _by_distance(embedding: Tensor, size: int) -> Tensor:
    """Float[D, C] for distances from the farthest behind to the farthest ahead -> Float[size, size,
    C] for each pair of places, resampled where the embedding is of another size."""
    distances = 2 * size - 1
    if len(embedding) != distances:
        embedding = F.interpolate(embedding.T[None], size=distances, mode="linear")[0].T
    places = torch.arange(size, device=embedding.device)
    return embedding[places[:, None] - places[None, :] + size - 1]
