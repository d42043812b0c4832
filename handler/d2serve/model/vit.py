"""The plain Vision Transformer as a backbone (`detectron2.modeling.backbone.vit`).

Li et al. 2022, ViTDet.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.linear import Linear
from d2serve.model.vision_transformer_config import ViTConfig


class GridAttention(nn.Module):
    """Self-attention over the cells of a grid, with relative positions per direction."""

    def __init__(
        self, dim: int, heads: int, *, bias: bool, relative_size_hw: tuple[int, int] | None
    ) -> None:
        """`relative_size_hw` is the grid that the relative positions were trained for, or None."""
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = Linear(dim, dim * 3, bias=bias)
        self.proj = Linear(dim, dim)
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
        """Float[N, heads, H * W, C] -> the relative position bias of each pair of cells,
        Float[N, heads, H * W, H * W]."""
        cells = query.unflatten(2, (height, width))
        rows = _relative_positions(self.rel_pos_h, height)
        columns = _relative_positions(self.rel_pos_w, width)
        of_rows = torch.einsum("nahwc,hkc->nahwk", cells, rows)
        of_columns = torch.einsum("nahwc,wkc->nahwk", cells, columns)
        bias = of_rows[..., :, None] + of_columns[..., None, :]
        return bias.flatten(4).flatten(2, 3)


def _relative_positions(embedding: Tensor, size: int) -> Tensor:
    """Embeddings Float[D, C] of the distances -(D - 1) / 2..(D - 1) / 2 -> Float[size, size, C] for
    each pair of positions; resampled if D is not 2 * size - 1."""
    distances = 2 * size - 1
    if len(embedding) != distances:
        embedding = F.interpolate(embedding.T[None], size=distances, mode="linear")[0].T
    positions = torch.arange(size, device=embedding.device)
    return embedding[positions[:, None] - positions[None, :] + size - 1]


class PatchEmbed(nn.Module):
    """A linear projection of each square patch to a grid cell."""

    def __init__(self, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, H / patch, W / patch, C]."""
        cells: Tensor = self.proj(images).permute(0, 2, 3, 1)
        return cells


class MLP(nn.Module):
    """Two fully connected layers, applied to each cell."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim, gelu=True)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, grid: Tensor) -> Tensor:
        """Float[..., C] -> the same shape."""
        output: Tensor = self.fc2(self.fc1(grid))
        return output

    def add(self, normed: Tensor, grid: Tensor) -> Tensor:
        """The output for Float[..., C] plus the second Float[..., C]."""
        return self.fc2.add(self.fc1(normed), grid)


class Block(nn.Module):
    """Attention, in windows or over the whole grid, and an MLP, both with residual connections."""

    def __init__(self, config: ViTConfig, windowed: bool) -> None:
        super().__init__()
        dim, side = config.dim, config.image_size // config.patch_size
        self.window_size = config.window_size if windowed else 0
        side = self.window_size or side
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = GridAttention(
            dim,
            config.heads,
            bias=config.qkv_bias,
            relative_size_hw=(side, side) if config.relative_positions else None,
        )
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio))

    def forward(self, grid: Tensor) -> Tensor:
        """Float[N, H, W, C] -> the same shape."""
        normed = self.norm1(grid)
        grid = grid + (self._windowed_attention(normed) if self.window_size else self.attn(normed))
        return self.mlp.add(self.norm2(grid), grid)

    def _windowed_attention(self, grid: Tensor) -> Tensor:
        windows = split_into_windows(grid, self.window_size)
        return join_windows(self.attn(windows), (grid.shape[1], grid.shape[2]))


class ViT(nn.Module):
    """Patches, absolute positions, and a stack of blocks at a single resolution."""

    def __init__(self, config: ViTConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.class_token = config.class_token
        self.patch_embed = PatchEmbed(in_channels, config.patch_size, config.dim)
        self.pos_embed: nn.Parameter | None = None
        if config.absolute_positions:
            positions = (config.pretrain_image_size // config.patch_size) ** 2 + config.class_token
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, config.dim))
        self.blocks = nn.ModuleList(
            Block(config, windowed=index in config.windowed_blocks) for index in range(config.depth)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, C, H / patch, W / patch]."""
        grid = self.patch_embed(images)
        if self.pos_embed is not None:
            embedding = self.pos_embed[0, 1:] if self.class_token else self.pos_embed[0]
            grid = grid + absolute_positions(embedding, (grid.shape[1], grid.shape[2]))
        for block in self.blocks:
            grid = block(grid)
        return grid.permute(0, 3, 1, 2)


def absolute_positions(
    embedding: Tensor, size_hw: tuple[int, int], trained_hw: tuple[int, ...] | None = None
) -> Tensor:
    """Resample the embeddings of a grid's cells to another grid size (bicubic).

    Args:
        embedding: Float[h * w, C], row by row.
        size_hw: height and width of the other grid.
        trained_hw: h and w; by default the grid is square.

    Returns:
        Float[1, H, W, C].
    """
    side = math.isqrt(len(embedding))
    trained_hw = trained_hw or (side, side)
    grid = embedding.T.unflatten(1, trained_hw)[None]
    if size_hw != trained_hw:
        grid = F.interpolate(grid, size=size_hw, mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1)


def split_into_windows(grid: Tensor, size: int) -> Tensor:
    """Float[N, H, W, C] -> Float[N * windows, size, size, C], padded with zeros at right and
    bottom."""
    images, height, width, channels = grid.shape
    grid = F.pad(grid, (0, 0, 0, -width % size, 0, -height % size))
    rows, columns = grid.shape[1] // size, grid.shape[2] // size
    windows = grid.view(images, rows, size, columns, size, channels).transpose(2, 3)
    return windows.reshape(-1, size, size, channels)


def join_windows(windows: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Undo `split_into_windows`: back to Float[N, H, W, C]."""
    height, width = size_hw
    size, channels = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // size), -(-width // size)
    grid = windows.view(-1, rows, columns, size, size, channels).transpose(2, 3)
    return grid.reshape(-1, rows * size, columns * size, channels)[:, :height, :width]
