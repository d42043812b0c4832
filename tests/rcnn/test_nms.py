"""Suppression by class beside torchvision's."""

import pytest
import torch
import torchvision.ops
from torch import Tensor

from handler.rcnn.nms import MOST_AT_ONCE, batched_nms

LIMIT = MOST_AT_ONCE["cpu"]


def boxes_of(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Many that overlap, in five classes."""
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand((count, 2), generator=generator) * 100
    sides = torch.rand((count, 2), generator=generator) * 60
    scores = torch.rand(count, generator=generator)
    classes = torch.randint(0, 5, (count,), generator=generator)
    return torch.cat((corners, corners + sides), dim=1), scores, classes


@pytest.mark.parametrize("count", [0, 1, 300, LIMIT, LIMIT + 1, 3000])
def test_keeps_what_torchvision_keeps(count: int) -> None:
    boxes, scores, classes = boxes_of(count)
    expected = torchvision.ops.batched_nms(boxes, scores, classes, 0.5)
    kept = batched_nms(boxes, scores, classes, 0.5)
    assert torch.equal(kept, expected)
    assert count < 300 or 0 < len(kept) < count
