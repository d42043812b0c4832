"""Masks from full-image logits, compared bit for bit with torch's dense interpolation."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.masks import image_masks, windows
from d2serve.masks.image_masks import ImageMasks, threshold_logits
from d2serve.masks.paste import regions
from d2serve.masks.resampling import Resampling, SizeHW
from d2serve.masks.runs import Runs
from d2serve.masks.unlocked import _compile

NODES_HW, PADDED_HW = (25, 42), (100, 168)
# Resized image, original image: smaller, larger, equal, tiny, a row, a column.
SIZES = [
    ((93, 165), (61, 97)),
    ((93, 165), (241, 399)),
    ((100, 168), (100, 168)),
    ((97, 163), (31, 43)),
    ((1, 168), (1, 321)),
    ((100, 3), (307, 2)),
]


def sample_logits(nodes_hw: SizeHW) -> Tensor:
    """Float32[33, h, w]: noise, blobs, single nodes, zeros beside small numbers, empty, full."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn((8, *nodes_hw), generator=generator) * 6
    blobs = F.avg_pool2d(noise[None], 7, 1, 3)[0] * 4 - 1
    single = torch.full((6, *nodes_hw), -3.0)
    for index, value in enumerate(torch.rand(6, generator=generator) * 40):
        single[index, index * nodes_hw[0] // 6, -index] = value
    steps = torch.randint(-1, 2, (8, *nodes_hw), generator=generator) * 1e-3
    uniform = torch.tensor([-1.0, 2.0, 0.0])[:, None, None].expand(3, *nodes_hw)
    return torch.cat((noise, blobs, single, steps, uniform))


def scale_densely(
    logits: Tensor, padded_hw: SizeHW, size_hw: SizeHW, original_hw: SizeHW
) -> Tensor:
    """Float32[Q, H, W]: MaskFormer's two steps."""
    scaled = F.interpolate(logits[None], padded_hw, mode="bilinear", align_corners=False)
    part = scaled[:, :, : size_hw[0], : size_hw[1]]
    return F.interpolate(part, original_hw, mode="bilinear", align_corners=False)[0]


def scale_aligned(
    probabilities: Tensor, stride: int, size_hw: SizeHW, original_hw: SizeHW
) -> Tensor:
    """Float32[Q, H, W] by the formula of AdelaiDet: pixel i is at node max(0, i - s // 2) / s."""
    framed = F.pad(probabilities[None], (0, 1, 0, 1), mode="replicate")
    sides = [stride * side + 1 for side in probabilities.shape[1:]]
    scaled = F.interpolate(framed, sides, mode="bilinear", align_corners=True)
    places = [(torch.arange(side) - stride // 2).clamp(min=0) for side in size_hw]
    part = scaled[:, :, places[0]][..., places[1]]
    return F.interpolate(part, original_hw, mode="bilinear", align_corners=False)[0]


def assert_masks(found: ImageMasks, values: Tensor, threshold: float) -> None:
    expected = values > threshold
    pixels = [region.full(found.runs.size_hw) for region in regions(found.runs)]
    np.testing.assert_array_equal(np.stack(pixels), expected.numpy())
    areas = expected.double().sum((1, 2))
    means = (values.double().sigmoid() * expected).sum((1, 2)) / areas.clamp(min=1)
    np.testing.assert_allclose(found.probabilities, means.numpy(), atol=2e-6)
    np.testing.assert_array_equal(found.runs.areas(), areas.numpy())


@pytest.mark.parametrize(("size_hw", "original_hw"), SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_masks_equal_dense_interpolation(
    size_hw: SizeHW, original_hw: SizeHW, dtype: torch.dtype
) -> None:
    logits = sample_logits(NODES_HW).to(dtype)
    found = threshold_logits(logits, Resampling(NODES_HW, PADDED_HW, size_hw, original_hw))
    dense = scale_densely(logits.float(), PADDED_HW, size_hw, original_hw)
    assert_masks(found, dense, 0.0)


@pytest.mark.parametrize(("size_hw", "original_hw"), SIZES, ids=str)
def test_aligned_masks_equal_dense_interpolation(size_hw: SizeHW, original_hw: SizeHW) -> None:
    probabilities = sample_logits(NODES_HW).sigmoid()
    resampling = Resampling(NODES_HW, PADDED_HW, size_hw, original_hw, aligned=True)
    found = threshold_logits(probabilities, resampling, threshold=0.5)
    assert_masks(found, scale_aligned(probabilities, 4, size_hw, original_hw), 0.5)


def test_strips_of_a_mask_equal_dense_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST_VALUES", 500)
    logits, size_hw, original_hw = sample_logits(NODES_HW), *SIZES[1]
    found = threshold_logits(logits, Resampling(NODES_HW, PADDED_HW, size_hw, original_hw))
    assert_masks(found, scale_densely(logits, PADDED_HW, size_hw, original_hw), 0.0)


def test_parts_of_the_masks_are_scaled_densely_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, or on a processor whose roundings are not known."""
    monkeypatch.setattr(image_masks, "order_of_roundings", lambda: None)
    monkeypatch.setattr(image_masks, "MOST_VALUES", 1)
    counts = []
    dense = Resampling.dense

    def spy(self: Resampling, logits: Tensor) -> Tensor:
        counts.append(len(logits))
        return dense(self, logits)

    monkeypatch.setattr(Resampling, "dense", spy)
    logits, size_hw, original_hw = sample_logits(NODES_HW), *SIZES[0]
    found = threshold_logits(logits, Resampling(NODES_HW, PADDED_HW, size_hw, original_hw))
    assert_masks(found, scale_densely(logits, PADDED_HW, size_hw, original_hw), 0.0)
    assert counts == [16, 16, 1]


def test_the_roundings_of_this_processor_are_known() -> None:
    """Otherwise all masks would still be right, but scaled densely."""
    assert windows.order_of_roundings() in windows.ORDERS


def test_thresholding_is_compiled() -> None:
    compiled = _compile(inspect.unwrap(windows._threshold))
    assert isinstance(compiled, torch.jit.ScriptFunction)


def test_boxes_touch_the_masks() -> None:
    logits = sample_logits(NODES_HW)
    resampling = Resampling(NODES_HW, PADDED_HW, *SIZES[0])
    runs = threshold_logits(logits, resampling).runs
    boxes = []
    for region in regions(runs):
        height, width = region.pixels.shape
        boxes.append((region.x, region.y, region.x + width, region.y + height))
    np.testing.assert_array_equal(runs.boxes(), np.array(boxes, np.float32))
    assert [0, 0, 97, 61] in runs.boxes().tolist()
    assert [0, 0, 0, 0] in runs.boxes().tolist()
    # Runs that continue in the next column.
    runs = Runs.of([np.array(bounds) for bounds in ([3, 7], [], [6, 8, 11, 13])], (5, 4))
    assert runs.boxes().tolist() == [[0, 0, 2, 5], [0, 0, 0, 0], [1, 1, 3, 3]]


def test_numbers_that_are_not_finite_equal_dense_interpolation() -> None:
    logits = sample_logits(NODES_HW)[:3]
    logits[0, 3, 4], logits[1, 5:9, 5:9], logits[2] = torch.nan, torch.inf, -torch.inf
    found = threshold_logits(logits, Resampling(NODES_HW, PADDED_HW, *SIZES[0]))
    dense = scale_densely(logits, PADDED_HW, *SIZES[0])
    assert_masks(found, dense.nan_to_num(nan=-1.0), 0.0)


def test_no_masks() -> None:
    found = threshold_logits(
        torch.zeros((0, *NODES_HW)), Resampling(NODES_HW, PADDED_HW, *SIZES[0])
    )
    assert (len(found.runs), found.probabilities.shape, found.runs.boxes().shape) == (
        0,
        (0,),
        (0, 4),
    )
