"""Full-image logits, scaled tile by tile, so that the values of all masks never exist at once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from d2serve.masks.resampling import LinearStep, ResampledAxis, Resampling

# Values of a tile, of all masks or all classes, and its largest width in pixels.
MOST_VALUES, MOST_COLUMNS = 1 << 22, 512


class Tile(NamedTuple):
    """A part of an image: pixels of `rows` and `columns`."""

    rows: slice
    columns: slice


def tiles(size_hw: tuple[int, int], depth: int) -> Iterator[Tile]:
    """Cut an image of this height and width into tiles, for `depth` values per pixel."""
    height, width = size_hw
    columns = min(width, MOST_COLUMNS)
    rows = max(1, MOST_VALUES // (depth * columns))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield Tile(slice(top, min(top + rows, height)), slice(left, min(left + columns, width)))


class ScaledLogits:
    """Logits in pixels of the original image, computed where they are needed.

    The values are within rounding of torch's `interpolate` in two steps.

    Args:
        logits: Float32[N, h, w].
        resampling: from h x w to the original image.
    """

    def __init__(self, logits: Tensor, resampling: Resampling) -> None:
        self.logits = logits
        vertical, horizontal = resampling.axes()
        self.vertical = _Weights(vertical, logits.device)
        self.horizontal = _Weights(horizontal, logits.device)

    def __getitem__(self, tile: Tile) -> Tensor:
        """Float32[N, rows, columns]."""
        rows, down = self.vertical.of(tile.rows)
        columns, across = self.horizontal.of(tile.columns)
        return torch.matmul(down, torch.matmul(self.logits[:, rows, columns], across.t()))


class Interpolation:
    """The second step alone, from values of the resized to the original image, tile by tile.

    Args:
        resampling: the two steps.
        device: the values' device.
    """

    def __init__(self, resampling: Resampling, device: torch.device) -> None:
        self.steps = [
            LinearStep(*(part.to(device) for part in axis.second)) for axis in resampling.axes()
        ]

    def source(self, tile: Tile) -> Tile:
        """The part of the resized image that a tile depends on."""
        rows, columns = (
            slice(int(step.below[part.start]), int(step.above[part.stop - 1]) + 1)
            for step, part in zip(self.steps, tile, strict=True)
        )
        return Tile(rows, columns)

    def __call__(self, values: Tensor, tile: Tile) -> Tensor:
        """Float32[N, rows, columns] of the tile from the values of its source."""
        for dim, (step, part) in enumerate(zip(self.steps, tile, strict=True), start=1):
            below, above, *weights = (each[part] for each in step)
            shape = (-1, 1) if dim == 1 else (-1,)
            lower, upper = (
                values.index_select(dim, places - below[0]).mul_(weight.view(shape))
                for places, weight in zip((below, above), weights, strict=True)
            )
            values = lower.add_(upper)
        return values


class _Weights:
    """Both steps along one axis."""

    def __init__(self, axis: ResampledAxis, device: torch.device) -> None:
        self.lowest, self.highest = axis.lowest.tolist(), axis.highest.tolist()
        self.weights = axis.weights.to(device)

    def of(self, pixels: slice) -> tuple[slice, Tensor]:
        """The nodes that pixels depend on, and Float32[pixels, nodes]."""
        nodes = slice(self.lowest[pixels.start], self.highest[pixels.stop - 1] + 1)
        return nodes, self.weights[pixels, nodes]
