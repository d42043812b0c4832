"""Stems that are computed in strips equal plain ones."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from d2serve.model import packed_stem
from d2serve.model.optimize import fold_norms
from d2serve.model.packed_conv import pack
from d2serve.model.packed_stem import PackedStem, halve
from d2serve.model.resnet import Stem


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step_bytes", [1, 3_000, 1 << 22])
@pytest.mark.parametrize("size_nhw", [(1, 32, 64), (2, 37, 51), (3, 1, 2), (1, 6, 5)])
def test_a_stem_in_strips_equals_the_plain_one(
    size_nhw: tuple[int, int, int], step_bytes: int, dtype: torch.dtype
) -> None:
    count, height, width = size_nhw
    torch.manual_seed(0)
    model = torch.nn.Sequential(Stem(3, 16, "FrozenBN"))
    fold_norms(model)
    model.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(count, 3, height, width, dtype=dtype)
    with torch.inference_mode(), patch.object(packed_stem, "STEP_BYTES", step_bytes):
        expected = model(images)
        pack(model)
        assert isinstance(model[0], PackedStem)
        found = model(images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


def test_a_stem_with_a_norm_stays() -> None:
    model = torch.nn.Sequential(Stem(3, 32, "GN"))
    pack(model)
    assert isinstance(model[0], Stem)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_halving_is_max_pooling(count: int) -> None:
    values = torch.rand(3, count, 5, generator=torch.Generator().manual_seed(0))
    expected = F.max_pool1d(values.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)
    assert torch.equal(halve(values, 1), expected)
