"""Mask probabilities over boxes -> runs of set pixels in the image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from threading import RLock
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from d2serve.masks.columns import paste_by_columns
from d2serve.masks.sampling import box_coordinates

PIXELS_AT_ONCE = 1 << 20


def paste_densely(
    probabilities: npt.NDArray[np.float32],
    box_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    threshold: float,
) -> npt.NDArray[np.int64]:
    """The bounds of one mask's runs, as `Runs` has them, by sampling every pixel of its box.

    Args:
        probabilities: Float32[M, M] in 0..1 over the box's extent; NaN counts as 0.
        box_xyxy: Float32[4] in pixels, wider and higher than 0.
        size_hw: height and width of the picture.
        threshold: from which probability on a pixel is set.
    """
    height, width = size_hw
    x, y = (
        _pixels(start, end, length)
        for start, end, length in zip(box_xyxy[:2], box_xyxy[2:], (width, height), strict=True)
    )
    mask = torch.from_numpy(np.nan_to_num(probabilities, nan=0.0))[None, None]
    across, down = (
        torch.from_numpy(box_coordinates(pixels, start, end))
        for pixels, start, end in zip((x, y), box_xyxy[:2], box_xyxy[2:], strict=True)
    )
    columns = np.zeros((len(x), height), dtype=np.bool_)
    at_once = max(1, PIXELS_AT_ONCE // max(1, len(y)))
    for first in range(0, len(x), at_once):
        part = slice(first, first + at_once)
        grid = torch.stack(torch.meshgrid(across[part], down, indexing="ij"), dim=-1)
        sampled = F.grid_sample(mask, grid[None], align_corners=False)[0, 0]
        columns[part, y[0] : y[-1] + 1] = (sampled >= threshold).numpy()
    turns = np.diff(columns.ravel(), prepend=False, append=False)
    return np.flatnonzero(turns) + x[0] * height


def _pixels(start: np.float32, end: np.float32, length: int) -> npt.NDArray[np.int64]:
    """Columns, or rows, of the picture that a box may reach."""
    first = int(np.clip(np.floor(start) - 1, 0, length - 1))
    return np.arange(first, int(np.clip(np.ceil(end) + 1, first + 1, length)))


Given = ParamSpec("Given")
Result = TypeVar("Result")
_turn = RLock()


def in_turn(work: Callable[Given, Result]) -> Callable[Given, Result]:
    """One thread at a time, of all functions together that are decorated so."""

    @wraps(work)
    def waiting(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with _turn:
            return work(*args, **kwargs)

    return waiting


THRESHOLD = 0.5
# What rounding can move a sampled probability by, for each cell along a side of the mask.
MARGIN_PER_CELL = 2e-6
# Pixels of one mask that are singled out at most, about.
MOST_DOUBTS = 1 << 16
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Runs:
    """The set pixels of N masks of one picture, as stretches of its columns.

    Pixel (x, y) is number x * H + y: down the columns, from the top left.

    Attributes:
        bounds: Int64[R], for one mask after the other the number of the first pixel of a run and
            of the first after it, in turn. Those of a mask rise: its runs neither touch nor are
            empty.
        offsets: Int64[N + 1], where in `bounds` each mask begins, and at last R.
        size_hw: height and width of the picture.
    """

    bounds: Integers
    offsets: Integers
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Integers]:
        """Each mask's bounds."""
        return (self.bounds[start:end] for start, end in pairwise(self.offsets.tolist()))

    def with_mask(self, mask: int, bounds: Integers) -> "Runs":
        """With the runs of a mask that has none."""
        offsets = self.offsets.copy()
        offsets[mask + 1 :] += len(bounds)
        return Runs(np.insert(self.bounds, self.offsets[mask], bounds), offsets, self.size_hw)


@in_turn
def paste_runs(probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Runs:
    """Resamples masks from their boxes to the picture's pixels, bilinear, at least 0.5 is set.

    Bit for bit the pixels of `detectron2.layers.mask_ops.paste_masks_in_image` on a CPU, in time
    that grows with the width of the boxes and not with their area: within a column of pixels the
    probability is a broken line, with a knot in the middle of each row of the mask's values. So

    1. of the cells between four neighbouring values, those are found in which 0.5 is crossed;
    2. where a column passes such a cell, its knots are interpolated, and between two on either
       side of 0.5 a division says where a run begins or ends;
    3. a pixel so near 0.5 that rounding decides is sampled in the very steps of Detectron2.

    The columns of all masks take each step together, in blocks that stay in the cache. Only a mask
    of which rounding decides very many pixels is sampled as a whole.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents; NaN counts as 0.
        boxes_xyxy: Float32[N, 4] in pixels, x1 <= x2 and y1 <= y2. What lies outside the picture
            is cut off; a box without width or height has no pixels.
        size_hw: height and width of the picture.
    """
    # Whether one is missing their sum tells sooner than a look at each.
    missing = np.isnan(probabilities.sum())
    known = np.nan_to_num(probabilities, nan=0.0) if missing else probabilities
    margin = MARGIN_PER_CELL * probabilities.shape[-1]
    dense = _dense(known, margin, boxes_xyxy, size_hw)
    # An empty box has no pixels.
    others = np.where(dense[:, None], np.float32(0), boxes_xyxy)
    runs = Runs(*paste_by_columns(known, others, size_hw, THRESHOLD, margin), size_hw)
    for mask in np.flatnonzero(dense):
        own = paste_densely(known[mask], boxes_xyxy[mask], size_hw, THRESHOLD)
        runs = runs.with_mask(mask, own)
    return runs


def _dense(
    probabilities: Floats, margin: float, boxes_xyxy: Floats, size_hw: tuple[int, int]
) -> Booleans:
    """Bool[N]: of which masks rounding decides more pixels than are worth singling out."""
    least, most = np.float32(THRESHOLD - margin), np.float32(THRESHOLD + margin)
    doubtful = (probabilities >= least) & (probabilities <= most)
    shares = doubtful.sum(axis=(1, 2)) / max(1, probabilities.shape[-1] ** 2)
    height, width = size_hw
    inside = np.clip(boxes_xyxy.astype(np.float64), 0, (width, height, width, height))
    areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    dense: Booleans = shares * areas > MOST_DOUBTS
    return dense
