"""Layers compare with plain implementations of the same operations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.backbone_config import DeformConfig
from d2serve.model.deformable_conv import DeformConv2d, OffsetConv2d
from d2serve.model.layers import Deconv2x2, FullyConnectedConv2d
from tests.goldens.deformable import deformable_convolution


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("modulated", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (4, 1), (2, 4)])
def test_a_deformable_convolution_samples_at_its_offsets(
    stride: int, dilation: int, modulated: bool, groups: int, offset_groups: int
) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 13, 17)
    config = DeformConfig(modulated, offset_groups)
    offset_conv = OffsetConv2d(8, stride=stride, dilation=dilation, config=config)
    convolution = DeformConv2d(8, stride=stride, dilation=dilation, groups=groups, norm="")
    convolution.weight = torch.nn.Parameter(torch.randn_like(convolution.weight))
    with torch.inference_mode():
        offsets, weights = offset_conv.sampling(features)
        offsets = offsets * 5
        output = convolution(features, offsets, weights)
        expected = deformable_convolution(
            features,
            offsets,
            convolution.weight,
            stride=stride,
            dilation=dilation,
            modulation=weights,
        ).relu()
    assert (weights is not None) == modulated
    assert output.shape[-2:] == (-(-13 // stride), -(-17 // stride))
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_modulation_weights_are_in_0_to_1() -> None:
    offset_conv = OffsetConv2d(
        4, stride=1, dilation=1, config=DeformConfig(modulated=True, groups=1)
    )
    _, weights = offset_conv.sampling(torch.randn(1, 4, 8, 8) * 100)
    assert weights is not None
    assert 0 <= weights.min() < 0.1
    assert 0.9 < weights.max() <= 1


def regions() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 12, 7, 7).to(memory_format=torch.channels_last)


def test_a_fully_connected_layer_equals_a_convolution_of_the_size_of_its_input() -> None:
    layer = FullyConnectedConv2d(12, 9, 7)
    with torch.inference_mode():
        expected = F.conv2d(regions(), layer.weight, layer.bias)
        assert expected.shape == (5, 9, 1, 1)
        torch.testing.assert_close(layer(regions()), expected)


def test_a_2x2_deconvolution_equals_a_transposed_convolution() -> None:
    deconvolution = Deconv2x2(12, 8)
    plain = nn.ConvTranspose2d(12, 8, 2, stride=2)
    plain.load_state_dict(deconvolution.state_dict())
    with torch.inference_mode():
        cells = deconvolution(regions())
        # Rows within cells follow rows of cells, then columns likewise.
        image = cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        torch.testing.assert_close(image, F.relu(plain(regions())))
