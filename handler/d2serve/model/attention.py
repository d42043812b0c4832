"""Attention, positions and perceptrons of DETR's transformer (Carion et al. 2020)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.linear import Linear, linear_from

TEMPERATURE = 10000.0
EPSILON = 1e-6


class MultiheadAttention(nn.Module):
    """Attention with the names of `torch.nn.MultiheadAttention`, batches first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """Float[N, Q, C], keys and values Float[N, K, C] -> Float[N, Q, C]; a query attends to the
        keys where Bool[N, Q, K] is true."""
        return self.split()(query, key, value, allowed)

    def split(self) -> "SplitAttention":
        """The same attention with a layer for each projection; weights are not copied."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            linear_from(Linear, *pair) for pair in zip(weights, biases, strict=True)
        )
        return SplitAttention(self.heads, query, key, value, self.out_proj)


class SplitAttention(nn.Module):
    """Replaces a `MultiheadAttention`."""

    def __init__(
        self, heads: int, q_proj: Linear, k_proj: Linear, v_proj: Linear, out_proj: Linear
    ) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = q_proj, k_proj, v_proj
        self.out_proj = out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """See `MultiheadAttention.forward`."""
        attended = F.scaled_dot_product_attention(
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(key)),
            self._heads(self.v_proj(value)),
            attn_mask=None if allowed is None else allowed[:, None],
        )
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output

    def _heads(self, rows: Tensor) -> Tensor:
        """Float[N, K, C] -> Float[N, heads, K, C / heads]."""
        return rows.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Fully connected layers with ReLU in between, of `dim` channels, by default three.

    Args:
        dim: channels in between.
        out_dim: channels of the output.
        in_dim: channels of the input; `dim` by default.
        layers: number of layers, at least two.
        kind: class of the layers.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        in_dim: int | None = None,
        layers: int = 3,
        kind: type[Linear] = Linear,
    ) -> None:
        super().__init__()
        inner = [kind(dim, dim, relu=True) for _ in range(layers - 2)]
        first = kind(dim if in_dim is None else in_dim, dim, relu=True)
        self.layers = nn.Sequential(first, *inner, kind(dim, out_dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Float[..., in_dim] -> Float[..., out_dim]."""
        output: Tensor = self.layers(rows)
        return output


def sine_positions(size_hw: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Sines and cosines of the normalized y, then x of each cell of a grid, row by row.

    Returns:
        Float32[H * W, dim], with `dim` a multiple of 4.
    """
    height, width = size_hw
    rows, columns = (_waves(size, dim // 2, device) for size in size_hw)
    return torch.cat(
        (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=2
    ).flatten(0, 1)


def _waves(size: int, dim: int, device: torch.device) -> Tensor:
    """Float32[size, dim]: the waves of the positions 1..size, normalized."""
    positions = torch.arange(1, size + 1, dtype=torch.float32, device=device)
    return sine_waves(positions / (size + EPSILON), dim)


def sine_waves(positions: Tensor, dim: int) -> Tensor:
    """Float32[...] positions in 0..1 -> Float32[..., dim]: alternating sines and cosines."""
    pairs = torch.arange(dim // 2, dtype=torch.float32, device=positions.device)
    angles = positions[..., None] * (2 * math.pi) / TEMPERATURE ** (2 * pairs / dim)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
