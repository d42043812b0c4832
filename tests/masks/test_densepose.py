"""Surface maps from a network's charts."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from d2serve.masks.densepose import ChartOutputs, SurfaceMap, surface_image

COARSE, PARTS, SIDE = 3, 5, 7
FLOOR = 0.01


def charts(confidences: int = 0) -> npt.NDArray[np.float32]:
    """Random values of two boxes; U and V are mostly in 0..1."""
    values = np.random.default_rng(0).normal(
        0.5, 0.5, (2, COARSE + 3 * PARTS + confidences, SIDE, SIDE)
    )
    return values.astype(np.float32)


def by_torch(values: torch.Tensor, size_hw: tuple[int, int], confident: bool) -> torch.Tensor:
    """UInt8[3, h, w] by the definition of the project, with all channels scaled to the box."""
    scaled = _scale(values, (SIDE * 2, SIDE * 2))
    coarse, fine, u, v = scaled[: COARSE + 3 * PARTS].split([COARSE, PARTS, PARTS, PARTS])
    if confident:
        factors = F.softplus(scaled[-2:]) + FLOOR
        coarse, fine = coarse * factors[0], fine * factors[1]
    labels = _scale(fine, size_hw).argmax(dim=0) * (_scale(coarse, size_hw).argmax(dim=0) > 0)
    uv = [_scale(chart, size_hw).gather(0, labels[None])[0] * (labels > 0) for chart in (u, v)]
    quantized = [(chart * 255).clamp(0, 255).byte() for chart in uv]
    return torch.stack([labels.byte(), *quantized])


def _scale(values: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(values[None], size_hw, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("confident", [False, True])
@pytest.mark.parametrize("size_hw", [(40, 25), (14, 14), (7, 7), (3, 50), (1, 1)])
def test_maps_are_those_of_the_definition(size_hw: tuple[int, int], confident: bool) -> None:
    values = charts(2 if confident else 0)
    outputs = ChartOutputs(values, COARSE, 2, FLOOR if confident else None)
    height, width = size_hw
    box = np.array([3.7, 2.2, 3.7 + width + 0.4, 2.2 + height + 0.4], np.float32)
    found = outputs.surface_map(1, box)
    assert found.box_xywh == (3, 2, width, height)
    expected = by_torch(torch.from_numpy(values[1]), size_hw, confident).numpy()
    np.testing.assert_array_equal(found.iuv[0], expected[0])
    # A value next to a step may be rounded to either side.
    assert np.abs(found.iuv.astype(int) - expected).max() <= 1
    assert (found.iuv == expected).mean() > 0.99
    assert size_hw == (1, 1) or len(np.unique(found.iuv[0])) > 2


def test_a_box_of_less_than_a_pixel_has_one() -> None:
    found = ChartOutputs(charts(), COARSE, 2).surface_map(
        0, np.array([4.9, 5, 5.3, 5.2], np.float32)
    )
    assert found.box_xywh == (4, 5, 1, 1)


def test_values_that_are_not_finite_become_the_lowest_coordinate() -> None:
    values = charts()
    values[0, :COARSE] = [[[0]], [[1]], [[0]]]
    values[0, COARSE : COARSE + PARTS] = np.arange(PARTS)[:, None, None]
    values[0, COARSE + PARTS :] = np.nan
    iuv = ChartOutputs(values, COARSE, 2).surface_map(0, np.array([0, 0, 9, 9], np.float32)).iuv
    assert (iuv[0] == PARTS - 1).all()
    assert not iuv[1:].any()


def test_the_first_map_is_on_top() -> None:
    below = SurfaceMap(0, 0, np.full((3, 3, 4), 2, np.uint8))
    above = SurfaceMap(1, 1, np.array([[[0, 1], [1, 1]]] * 3, np.uint8))
    iuv, owners = surface_image([above, below], (4, 4))
    assert owners.tolist() == [[2, 2, 2, 2], [2, 2, 1, 2], [2, 1, 1, 2], [0, 0, 0, 0]]
    np.testing.assert_array_equal(iuv, np.broadcast_to(owners, (3, 4, 4)))
