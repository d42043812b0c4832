"""The Swin Transformer as a backbone (`detectron2.modeling.backbone.swin`).

Liu et al. 2021. Grids of cells are rows of channels, so that fully connected layers, norms and the
division into windows take them without other copies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.linear import Linear
from d2serve.model.vision_transformer_config import SwinConfig
from d2serve.model.vit import MLP
from d2serve.model.windows import ShiftedWindows, make_windows, relative_indices


class WindowAttention(nn.Module):
    """Self-attention within windows, with a bias for each relative position."""

    def __init__(self, dim: int, heads: int, config: SwinConfig) -> None:
        super().__init__()
        self.heads, self.window = heads, config.window_size
        self.scale = config.query_scale or (dim // heads) ** -0.5
        positions = (2 * config.window_size - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(positions, heads))
        self.qkv = Linear(dim, dim * 3, bias=config.qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, rows: Tensor, windows: ShiftedWindows) -> Tensor:
        """Float[windows * L, C], window by window -> the same shape, before `proj`."""
        qkv = self.qkv(rows).view(-1, self.window**2, 3, self.heads, rows.shape[1] // self.heads)
        bias = self._bias()
        groups = []
        for part, mask in zip(qkv.split(windows.counts), windows.masks, strict=True):
            query, key, value = part.permute(2, 0, 3, 1, 4).unbind(0)
            added = bias if mask is None else bias + mask
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=added.to(rows.dtype), scale=self.scale
            )
            groups.append(attended.transpose(1, 2).reshape(-1, rows.shape[1]))
        return torch.cat(groups) if len(groups) > 1 else groups[0]

    def _bias(self) -> Tensor:
        """Float32[1, heads, L, L]."""
        table = self.relative_position_bias_table
        pairs = table.index_select(0, relative_indices(self.window, table.device))
        cells = self.window**2
        return pairs.T.reshape(1, self.heads, cells, cells)


class SwinBlock(nn.Module):
    """Attention in windows and an MLP, both with residual connections."""

    def __init__(self, dim: int, heads: int, config: SwinConfig) -> None:
        super().__init__()
        self.window = config.window_size
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = WindowAttention(dim, heads, config)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio))

    def forward(self, grid: Tensor, windows: ShiftedWindows) -> Tensor:
        """Float[N, H, W, C] -> the same shape."""
        height, width, channels = grid.shape[1:]
        padding = (0, 0, 0, -width % self.window, 0, -height % self.window)
        padded = F.pad(self.norm1(grid), padding) if any(padding) else self.norm1(grid)
        rows = padded.view(-1, channels).index_select(0, windows.cells)
        attended = self.attn(rows, windows).index_select(0, windows.positions)
        grid = self.attn.proj.add(attended.view(grid.shape), grid)
        return self.mlp.add(self.norm2(grid), grid)


class PatchMerging(nn.Module):
    """A linear projection of 2x2 cells to one of twice the channels."""

    def __init__(self, dim: int, norm_eps: float) -> None:
        super().__init__()
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)

    def forward(self, grid: Tensor) -> Tensor:
        """Float[N, H, W, C] -> Float[N, ceil(H / 2), ceil(W / 2), 2 * C]."""
        height, width = grid.shape[1:3]
        if height % 2 or width % 2:
            grid = F.pad(grid, (0, 0, 0, width % 2, 0, height % 2))
        cells = grid.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # Column by column within the 2x2 cells.
        output: Tensor = self.reduction(self.norm(cells.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return output


class SwinStage(nn.Module):
    """Blocks whose windows are shifted by half of their side in every second one."""

    def __init__(self, index: int, config: SwinConfig) -> None:
        super().__init__()
        dim, depth, heads = config.dim * 2**index, config.depths[index], config.heads[index]
        self.window = config.window_size
        self.blocks = nn.ModuleList(SwinBlock(dim, heads, config) for _ in range(depth))
        self.downsample: PatchMerging | None = None
        if index + 1 < len(config.depths):
            self.downsample = PatchMerging(dim, config.norm_eps)

    def forward(self, grid: Tensor) -> Tensor:
        """Float[N, H, W, C] -> the same shape, before `downsample`."""
        images, height, width, _ = grid.shape
        windows = [
            make_windows(images, (height, width), self.window, shift, grid.device)
            for shift in (0, self.window // 2)
        ]
        for index, block in enumerate(self.blocks):
            grid = block(grid, windows[index % 2])
        return grid


class PatchEmbed(nn.Module):
    """A linear projection of each square patch to a grid cell, and a norm."""

    def __init__(self, in_channels: int, config: SwinConfig) -> None:
        super().__init__()
        self.size = config.patch_size
        self.proj = nn.Conv2d(in_channels, config.dim, self.size, stride=self.size)
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.patch_norm else None

    def forward(self, images: Tensor) -> Tensor:
        """Float[N, in_channels, H, W] -> Float[N, ceil(H / patch), ceil(W / patch), C]."""
        height, width = images.shape[2:]
        if height % self.size or width % self.size:
            images = F.pad(images, (0, -width % self.size, 0, -height % self.size))
        cells: Tensor = self.proj(images).permute(0, 2, 3, 1)
        return cells if self.norm is None else self.norm(cells)


class SwinTransformer(nn.Module):
    """Patches, optional absolute positions, and stages of blocks.

    Attributes:
        channels, strides: of each feature map, by name.
    """

    # As D2SwinTransformer of Mask2Former; a pyramid has the same.
    size_divisibility = 32
    square_size = 0

    def __init__(self, config: SwinConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_channels, config)
        self.absolute_pos_embed: nn.Parameter | None = None
        if config.absolute_positions:
            side = config.pretrain_image_size // config.patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, config.dim, side, side))
        self.layers = nn.ModuleList(SwinStage(index, config) for index in range(len(config.depths)))
        self.names = dict(zip(config.feature_stages, config.features, strict=True))
        self.channels = {name: config.dim * 2**stage for stage, name in self.names.items()}
        self.strides = {name: config.patch_size * 2**stage for stage, name in self.names.items()}
        for stage, name in self.names.items():
            norm = nn.LayerNorm(self.channels[name], eps=config.norm_eps)
            self.add_module(f"norm{stage}", norm)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W] -> by name Float[N, C, ceil(H / s), ceil(W / s)]."""
        grid = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            size_hw = (grid.shape[1], grid.shape[2])
            positions = F.interpolate(self.absolute_pos_embed, size=size_hw, mode="bicubic")
            grid = grid + positions.permute(0, 2, 3, 1).to(grid.dtype)
        maps: dict[str, Tensor] = {}
        for index, stage in enumerate(self.layers):
            grid = stage(grid)
            if index in self.names:
                normed = self.get_submodule(f"norm{index}")(grid)
                maps[self.names[index]] = normed.permute(0, 3, 1, 2)
            if len(maps) == len(self.names):
                break
            grid = stage.downsample(grid)
        return maps
