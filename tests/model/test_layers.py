"""Layers that compute what others do by another way."""

import torch
import torch.nn.functional as F
from torch import nn

from d2serve.model.layers import CellUpsampling, WholeConv2d


def regions() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 12, 7, 7).to(memory_format=torch.channels_last)


def test_a_convolution_of_the_whole_input_is_a_convolution() -> None:
    whole = WholeConv2d(12, 9, 7)
    with torch.inference_mode():
        expected = F.conv2d(regions(), whole.weight, whole.bias)
        assert expected.shape == (5, 9, 1, 1)
        torch.testing.assert_close(whole(regions()), expected)


def test_each_cell_becomes_four_as_by_a_transposed_convolution() -> None:
    upsampling = CellUpsampling(12, 8)
    plain = nn.ConvTranspose2d(12, 8, 2, stride=2)
    plain.load_state_dict(upsampling.state_dict())
    with torch.inference_mode():
        cells = upsampling(regions())
        # Rows and the two of each, columns and the two of each.
        picture = cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        torch.testing.assert_close(picture, F.relu(plain(regions())))
