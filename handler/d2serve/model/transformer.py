"""The transformer of DETR: encoder and decoder with positions at each attention.

Carion et al. 2020.
"""

import torch
from torch import Tensor, nn

from d2serve.model.attention import MultiheadAttention, sine_positions
from d2serve.model.linear import Linear
from d2serve.model.mask_former_config import TransformerConfig


class _Layer(nn.Module):
    """Residual connections and a feedforward network, in layers of encoder and decoder.

    Its norms are `norm1`, `norm2`, ..., in the order of the parts.
    """

    def __init__(self, dim: int, config: TransformerConfig, num_norms: int) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.self_attn = MultiheadAttention(dim, config.heads)
        self.linear1 = Linear(dim, config.ffn_dim, relu=True)
        self.linear2 = Linear(config.ffn_dim, dim)
        for index in range(1, num_norms + 1):
            self.add_module(f"norm{index}", nn.LayerNorm(dim))

    def _before(self, index: int, rows: Tensor) -> Tensor:
        """The input of a part."""
        return self._norm(index, rows) if self.pre_norm else rows

    def _after(self, index: int, rows: Tensor, output: Tensor) -> Tensor:
        """The rows after a part."""
        return rows + output if self.pre_norm else self._norm(index, rows + output)

    def _norm(self, index: int, rows: Tensor) -> Tensor:
        normed: Tensor = self.get_submodule(f"norm{index}")(rows)
        return normed

    def _attend_to_self(self, rows: Tensor, positions: Tensor) -> Tensor:
        normed = self._before(1, rows)
        located = normed + positions
        return self._after(1, rows, self.self_attn(located, located, normed))

    def _feed_forward(self, index: int, rows: Tensor) -> Tensor:
        hidden = self.linear1(self._before(index, rows))
        return self._after(index, rows, self.linear2(hidden))


class EncoderLayer(_Layer):
    """Self-attention and a feedforward network."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__(dim, config, num_norms=2)

    def forward(self, cells: Tensor, positions: Tensor) -> Tensor:
        """Float[N, S, C] cells and Float[S, C] their positions -> Float[N, S, C]."""
        return self._feed_forward(2, self._attend_to_self(cells, positions))


class DecoderLayer(_Layer):
    """Self-attention, attention to the cells of a map, and a feedforward network."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__(dim, config, num_norms=3)
        self.multihead_attn = MultiheadAttention(dim, config.heads)

    def forward(self, queries: Tensor, embed: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
        """Update the queries.

        Args:
            queries: Float[N, Q, C].
            embed: Float[Q, C] positions of the queries.
            keys: Float[N, S, C] cells with positions added.
            cells: Float[N, S, C].

        Returns:
            Float[N, Q, C].
        """
        queries = self._attend_to_self(queries, embed)
        attended = self.multihead_attn(self._before(2, queries) + embed, keys, cells)
        return self._feed_forward(3, self._after(2, queries, attended))


class _Stack(nn.Module):
    """Layers and an optional norm after them, under the names that checkpoints have."""

    def __init__(self, layers: list[nn.Module], norm: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm


def _encoder(dim: int, layers: int, config: TransformerConfig) -> _Stack:
    norm = nn.LayerNorm(dim) if config.pre_norm else None
    return _Stack([EncoderLayer(dim, config) for _ in range(layers)], norm)


def _encode(encoder: _Stack, cells: Tensor, positions: Tensor) -> Tensor:
    for layer in encoder.layers:
        cells = layer(cells, positions)
    return cells if encoder.norm is None else encoder.norm(cells)


class TransformerEncoder(nn.Module):
    """Self-attention over all cells of a map (TransformerEncoderOnly)."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__()
        self.encoder = _encoder(dim, config.layers, config)

    def forward(self, features: Tensor) -> Tensor:
        """Float[N, C, H, W] -> the same shape."""
        cells, positions = flatten_map(features)
        encoded = _encode(self.encoder, cells, positions)
        return encoded.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """An encoder over the cells of a map, and a decoder of queries."""

    def __init__(self, dim: int, encoder_layers: int, config: TransformerConfig) -> None:
        super().__init__()
        self.encoder = _encoder(dim, encoder_layers, config)
        layers: list[nn.Module] = [DecoderLayer(dim, config) for _ in range(config.layers)]
        self.decoder = _Stack(layers, nn.LayerNorm(dim))

    def forward(self, features: Tensor, embed: Tensor) -> Tensor:
        """Decode queries.

        Args:
            features: Float[N, C, H, W].
            embed: Float[Q, C] positions of the queries.

        Returns:
            Float[N, Q, C].
        """
        cells, positions = flatten_map(features)
        cells = _encode(self.encoder, cells, positions)
        keys = cells + positions
        queries = torch.zeros_like(embed).expand(len(cells), -1, -1)
        for layer in self.decoder.layers:
            queries = layer(queries, embed, keys, cells)
        norm = self.decoder.norm
        assert norm is not None
        decoded: Tensor = norm(queries)
        return decoded


def flatten_map(features: Tensor) -> tuple[Tensor, Tensor]:
    """Float[N, C, H, W] -> cells Float[N, H * W, C] and their positions Float[H * W, C]."""
    height, width = features.shape[2:]
    positions = sine_positions((height, width), features.shape[1], features.device)
    return features.flatten(2).transpose(1, 2), positions.to(features.dtype)
