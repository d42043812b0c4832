"""Parts of the transformer equal plain implementations."""

import pytest
import torch
from torch import Tensor

from d2serve.model.layers import ChannelLayerNorm
from d2serve.model.vit import GridAttention, absolute_positions, join_windows, split_into_windows


@pytest.mark.parametrize("size_hw", [(7, 7), (5, 9), (3, 3), (14, 8)])
def test_joining_windows_undoes_splitting(size_hw: tuple[int, int]) -> None:
    grid = torch.randn(2, *size_hw, 4)
    windows = split_into_windows(grid, 7)
    assert windows.shape[1:] == (7, 7, 4)
    assert torch.equal(join_windows(windows, size_hw), grid)


def test_windows_are_squares_padded_with_zeros() -> None:
    grid = torch.arange(12.0).view(1, 3, 4, 1) + 1
    windows = split_into_windows(grid, 2)[..., 0]
    assert windows.tolist() == [
        [[1, 2], [5, 6]],
        [[3, 4], [7, 8]],
        [[9, 10], [0, 0]],
        [[11, 12], [0, 0]],
    ]


def test_absolute_positions_are_resampled_only_for_other_grid_sizes() -> None:
    embedding = torch.arange(9.0)[:, None] * torch.tensor([1.0, -2.0])
    assert torch.equal(absolute_positions(embedding, (3, 3)), embedding.view(1, 3, 3, 2))
    resampled = absolute_positions(embedding, (6, 3))
    assert resampled.shape == (1, 6, 3, 2)
    assert (resampled[0, 1:, :, 0] > resampled[0, :-1, :, 0]).all()
    torch.testing.assert_close(resampled[..., 1], -2 * resampled[..., 0])


@pytest.mark.parametrize("relative", [True, False])
def test_attention_equals_the_sum_over_pairs(relative: bool) -> None:
    torch.manual_seed(0)
    height, width, heads, dim = 3, 4, 2, 8
    sizes = (height, width) if relative else None
    attention = GridAttention(dim, heads, bias=True, relative_size_hw=sizes)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    grid = torch.randn(1, height, width, dim)
    with torch.inference_mode():
        expected = attend_by_pairs(attention, grid[0], relative)
        torch.testing.assert_close(attention(grid)[0], expected, atol=1e-5, rtol=1e-5)


def attend_by_pairs(attention: GridAttention, grid: Tensor, relative: bool) -> Tensor:
    height, width, dim = grid.shape
    per_head = dim // attention.heads
    attended = torch.zeros_like(grid)
    cells = [(y, x) for y in range(height) for x in range(width)]
    parts = attention.qkv(grid).view(height, width, 3, attention.heads, per_head)
    for head in range(attention.heads):
        for y, x in cells:
            query = parts[y, x, 0, head]
            logits = torch.stack([query @ parts[v, u, 1, head] for v, u in cells]) * per_head**-0.5
            if relative:
                logits += torch.stack([query @ attention.rel_pos_h[y - v + 2] for v, _ in cells])
                logits += torch.stack([query @ attention.rel_pos_w[x - u + 3] for _, u in cells])
            values = torch.stack([parts[v, u, 2, head] for v, u in cells])
            own = slice(head * per_head, (head + 1) * per_head)
            attended[y, x, own] = logits.softmax(0) @ values
    return attention.proj(attended)


def test_relative_positions_are_resampled_for_other_grid_sizes() -> None:
    attention = GridAttention(8, 2, bias=True, relative_size_hw=(3, 3))
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    larger = GridAttention(8, 2, bias=True, relative_size_hw=(5, 5))
    resampled = {
        name: resample_to_nine(getattr(attention, name)) for name in ("rel_pos_h", "rel_pos_w")
    }
    larger.load_state_dict(attention.state_dict() | resampled)
    grid = torch.randn(2, 5, 5, 8)
    with torch.inference_mode():
        torch.testing.assert_close(attention(grid), larger(grid))


def resample_to_nine(embedding: Tensor) -> Tensor:
    """Resample five distances to nine, with aligned pixel centres."""
    positions = ((torch.arange(9) + 0.5) * (5 / 9) - 0.5).clamp(0, 4)
    below, part = positions.floor().long(), positions.frac()[:, None]
    above = (below + 1).clamp(max=4)
    return (embedding[below] * (1 - part) + embedding[above] * part).detach()


def test_layer_norm_is_over_the_channels_of_each_pixel() -> None:
    norm = ChannelLayerNorm(4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    features = torch.randn(2, 4, 3, 5)
    mean = features.mean(1, keepdim=True)
    spread = (features.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    expected = (features - mean) / spread * norm.weight[:, None, None] + norm.bias[:, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(norm(features), expected)
