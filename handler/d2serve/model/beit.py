"""The BEiT transformer of DiT, whose feature maps are scaled from four of its blocks.

Bao et al. 2022 (BEiT), Li et al. 2022 (DiT), as in the folder dit/object_detection of
github.com/microsoft/unilm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import FrozenBatchNorm2d
from d2serve.model.linear import Linear
from d2serve.model.vision_transformer_config import BEiTConfig
from d2serve.model.vit import MLP, PatchEmbed, absolute_positions

MLP_RATIO = 4
NORM_EPS = 1e-6


class TokenAttention(nn.Module):
    """Self-attention over all tokens; only queries and values have a bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, dim * 3, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Float[N, L, C] -> the same shape."""
        qkv = self.qkv(tokens).unflatten(2, (3, -1))
        qkv[:, :, 0] += self.q_bias.to(tokens.dtype)
        qkv[:, :, 2] += self.v_bias.to(tokens.dtype)
        query, key, value = qkv.unflatten(3, (self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(attended.transpose(1, 2).reshape(tokens.shape))
        return output


class BEiTBlock(nn.Module):
    """Attention and an MLP with residual connections, scaled per channel in DiT."""

    def __init__(self, config: BEiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = TokenAttention(dim, config.heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, dim * MLP_RATIO)
        self.scaled = config.layer_scale
        if config.layer_scale:
            self.gamma_1 = nn.Parameter(torch.ones(dim))
            self.gamma_2 = nn.Parameter(torch.ones(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Float[N, L, C] -> the same shape."""
        attended = self.attn(self.norm1(tokens))
        if not self.scaled:
            tokens = tokens + attended
            return self.mlp.add(self.norm2(tokens), tokens)
        tokens = torch.addcmul(tokens, self.gamma_1.to(tokens.dtype), attended)
        hidden = self.mlp(self.norm2(tokens))
        return torch.addcmul(tokens, self.gamma_2.to(tokens.dtype), hidden)


class BEiT(nn.Module):
    """Patches, absolute positions, blocks, and a scaling of the output of four blocks.

    Attributes:
        channels, strides: of each feature map, by name.
    """

    size_divisibility = 32
    square_size = 0

    def __init__(self, config: BEiTConfig, in_channels: int = 3) -> None:
        super().__init__()
        dim, (height, width) = config.dim, config.positions_hw
        self.positions_hw = config.positions_hw
        self.patch_embed = PatchEmbed(in_channels, config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, height * width + 1, dim))
        self.blocks = nn.ModuleList(BEiTBlock(config) for _ in range(config.depth))
        self.names = dict(zip(config.feature_blocks, config.features, strict=True))
        self.channels = dict.fromkeys(config.features, dim)
        self.strides = dict(
            zip(config.features, (2**level for level in config.levels), strict=True)
        )
        double = (nn.ConvTranspose2d(dim, dim, 2, stride=2) for _ in range(3))
        self.fpn1 = nn.Sequential(next(double), FrozenBatchNorm2d(dim), nn.GELU(), next(double))
        self.fpn2 = nn.Sequential(next(double))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, in_channels, H, W], H and W multiples of 32 -> by name Float[N, C, H/s, W/s]
        with s = 4, 8, 16 and 32."""
        grid = self.patch_embed(images)
        positions = absolute_positions(
            self.pos_embed[0, 1:], (grid.shape[1], grid.shape[2]), self.positions_hw
        )
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(grid), -1, -1)
        cells = grid + positions.to(grid.dtype)
        tokens = torch.cat((first.to(grid.dtype), cells.flatten(1, 2)), dim=1)
        maps: dict[str, Tensor] = {}
        scalings = iter((self.fpn1, self.fpn2, self.fpn3, self.fpn4))
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.names:
                # A view whose channels are last in memory, as those of all features.
                cells = tokens[:, 1:].view(grid.shape).permute(0, 3, 1, 2)
                maps[self.names[index]] = next(scalings)(cells)
        return maps


class DiT(nn.Module):
    """A `BEiT` as the child `backbone`, as the names of DiT's checkpoints require."""

    size_divisibility = BEiT.size_divisibility
    square_size = 0

    def __init__(self, config: BEiTConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.backbone = BEiT(config, in_channels)
        self.channels, self.strides = self.backbone.channels, self.backbone.strides

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `BEiT.forward`."""
        maps: dict[str, Tensor] = self.backbone(images)
        return maps
