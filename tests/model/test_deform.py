"""Deformable convolutions beside plain sampling."""

import pytest
import torch

from d2serve.model.config import DeformConfig
from d2serve.model.layers import DeformConv2d, OffsetConv2d
from tests.goldens.deformable import deformable_convolution


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("modulated", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (4, 1), (2, 4)])
def test_samples_where_the_offsets_say(
    stride: int, dilation: int, modulated: bool, groups: int, offset_groups: int
) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 13, 17)
    config = DeformConfig(modulated, offset_groups)
    where = OffsetConv2d(8, stride=stride, dilation=dilation, config=config)
    convolution = DeformConv2d(8, stride=stride, dilation=dilation, groups=groups, norm="")
    convolution.weight = torch.nn.Parameter(torch.randn_like(convolution.weight))
    with torch.inference_mode():
        offsets, weights = where.sampling(features)
        offsets = offsets * 5
        found = convolution(features, offsets, weights)
        expected = deformable_convolution(
            features,
            offsets,
            convolution.weight,
            stride=stride,
            dilation=dilation,
            modulation=weights,
        ).relu()
    assert (weights is not None) == modulated
    assert found.shape[-2:] == (-(-13 // stride), -(-17 // stride))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_modulation_is_between_0_and_1() -> None:
    where = OffsetConv2d(4, stride=1, dilation=1, config=DeformConfig(modulated=True, groups=1))
    _, weights = where.sampling(torch.randn(1, 4, 8, 8) * 100)
    assert weights is not None
    assert 0 <= weights.min() < 0.1
    assert 0.9 < weights.max() <= 1
