"""Keypoints are the peaks of heatmaps, computed for all boxes at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model import keypoint_head as module
from d2serve.model.keypoint_head import find_peaks

SIDE, KEYPOINTS = 28, 5


def logits(count: int) -> Tensor:
    random = torch.Generator().manual_seed(count)
    noise = torch.randn(count, KEYPOINTS, SIDE, SIDE, generator=random)
    return F.avg_pool2d(noise, 5, stride=1, padding=2) * 10


def boxes(count: int) -> Tensor:
    """Boxes with sides of 0.1 to 150 pixels."""
    random = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=random) * 50
    return torch.cat((corners, corners + torch.rand(count, 2, generator=random) * 150 + 0.1), dim=1)


def peak_of_one(heatmap: Tensor, box: Tensor) -> Tensor:
    """The peak after torch's interpolation to the size of the box."""
    size = (box[2:] - box[:2]).clamp(min=1)
    width, height = (int(side) for side in size.ceil())
    resampled = F.interpolate(heatmap[None], size=(height, width), mode="bicubic")[0].flatten(1)
    highest, peak = resampled.max(dim=1)
    pixel = torch.stack((peak % width, peak // width), dim=1)
    scores = 1 / (heatmap.flatten(1) - highest[:, None]).exp().sum(dim=1)
    return torch.cat(((pixel + 0.5) * size / size.ceil() + box[:2], scores[:, None]), dim=1)


@pytest.mark.parametrize("budget", [1, 20_000, 1 << 23])
def test_peaks_equal_those_of_each_box_alone(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", {"cpu": budget})
    maps, regions = logits(12), boxes(12)
    regions[3, 2:] = regions[3, :2] + 0.4
    expected = torch.stack([peak_of_one(*pair) for pair in zip(maps, regions, strict=True)])
    torch.testing.assert_close(find_peaks(maps, regions), expected, rtol=0, atol=1e-4)


def test_no_boxes_give_no_peaks() -> None:
    assert find_peaks(logits(1)[:0], boxes(1)[:0]).shape == (0, KEYPOINTS, 3)
