"""Suppression by class beside torchvision's."""

import pytest
import torch
import torchvision.ops
from torch import Tensor

from handler.rcnn import nms

LIMIT = 1000  # where torchvision changes its way


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
    kept = nms.batched_nms(boxes, scores, classes, 0.5)
    assert torch.equal(kept, expected)
    assert count < 300 or 0 < len(kept) < count


@pytest.mark.parametrize(("count", "times"), [(LIMIT, 1), (LIMIT + 1, 5)])
def test_classes_go_together_up_to_where_torchvision_takes_them_one_by_one(
    monkeypatch: pytest.MonkeyPatch, count: int, times: int
) -> None:
    """The two ways round differently, and the goldens are of torchvision's."""
    together: list[int] = []
    suppress = nms._nms

    def counted(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        together.append(len(boxes))
        return suppress(boxes, scores, threshold)

    monkeypatch.setattr(nms, "_nms", counted)
    nms.batched_nms(*boxes_of(count), 0.5)
    assert (len(together), sum(together)) == (times, count)
