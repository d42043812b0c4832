"""Mask probabilities over boxes -> runs of set pixels in the image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from threading import RLock
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

# Minimum probability of a set pixel.
THRESHOLD = 0.5
# Largest rounding error of a sampled probability per grid cell along a side of the mask.
MARGIN_PER_CELL = 2e-6
# Masks with more ambiguous pixels, estimated, are sampled at every pixel.
MAX_AMBIGUOUS_PIXELS = 1 << 16
# Masks that are pasted together, and their ambiguous pixels, estimated, which bound the memory.
MASKS_TOGETHER, AMBIGUOUS_PIXELS_TOGETHER = 128, 1 << 21
# Pixels per call when a mask is sampled at every pixel.
BLOCK_PIXELS = 1 << 20
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.signedinteger)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
# Guards the functions that `serialized` decorates.
_lock = RLock()


@dataclass(frozen=True)
class Runs:
    """The set pixels of N masks of one image, as runs along its columns.

    Pixel (x, y) has the number x * H + y: down the columns, from the top left.

    Attributes:
        bounds: Int64[R], for one mask after the other the number of the first pixel of each run
            and of the first pixel after it. Strictly ascending within a mask: runs are not empty
            and do not touch.
        offsets: Int64[N + 1], the start of each mask in `bounds`, and R.
        size_hw: height and width of the image.
    """

    bounds: Integers
    offsets: Integers
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Integers]:
        """Each mask's bounds."""
        return (self.bounds[start:end] for start, end in pairwise(self.offsets.tolist()))

    @classmethod
    def of(cls, masks: Sequence[Integers], size_hw: tuple[int, int]) -> "Runs":
        """Join the bounds of N masks."""
        offsets = np.cumsum([0, *map(len, masks)], dtype=np.int64)
        bounds = np.concatenate(masks) if masks else np.zeros(0, np.int64)
        return cls(bounds.astype(np.int64, copy=False), offsets, size_hw)

    @classmethod
    def of_changes(
        cls, changes: npt.NDArray[np.signedinteger], count: int, size_hw: tuple[int, int]
    ) -> "Runs":
        """Masks whose pixels change their state, from unset, at the pixels with these numbers.

        Args:
            changes: Int[C] in any order; changes at the same pixel cancel each other in pairs. The
                numbers of mask n start at n * (H * W + 1), so that runs of two masks never touch.
            count: number of masks.
            size_hw: height and width of the image.
        """
        numbers = without_pairs(np.sort(changes))
        firsts = np.arange(count + 1) * (size_hw[0] * size_hw[1] + 1)
        offsets = np.searchsorted(numbers, firsts.astype(numbers.dtype))
        return cls(numbers - np.repeat(firsts[:-1], np.diff(offsets)), offsets, size_hw)

    def select(self, indices: Iterable[int]) -> "Runs":
        """The masks at Int[K] indices."""
        masks = list(self)
        return Runs.of([masks[index] for index in indices], self.size_hw)

    def areas(self) -> Integers:
        """Int64[N]: the number of set pixels of each mask."""
        lengths = np.concatenate(([0], np.cumsum(self.bounds[1::2] - self.bounds[::2])))
        return lengths[self.offsets[1:] // 2] - lengths[self.offsets[:-1] // 2]

    def boxes(self) -> Floats:
        """Float32[N, 4]: x1, y1, x2, y2 around the set pixels; zeros for an empty mask."""
        height, _ = self.size_hw
        boxes = np.zeros((len(self), 4), np.float32)
        is_filled = self.offsets[1:] > self.offsets[:-1]
        if not is_filled.any():
            return boxes
        left, top = np.divmod(self.bounds[::2], height)
        right, bottom = np.divmod(self.bounds[1::2] - 1, height)
        # A run that continues in the next column contains the last row and the first.
        continues = left != right
        top, bottom = np.where(continues, 0, top), np.where(continues, height - 1, bottom)
        firsts = self.offsets[:-1][is_filled] // 2
        sides = [np.minimum.reduceat(side, firsts) for side in (left, top)]
        sides += [np.maximum.reduceat(side, firsts) + 1 for side in (right, bottom)]
        boxes[is_filled] = np.stack(sides, axis=1)
        return boxes

    def with_mask(self, mask: int, bounds: Integers) -> "Runs":
        """A copy with the bounds of a mask that has no runs yet."""
        offsets = self.offsets.copy()
        offsets[mask + 1 :] += len(bounds)
        return Runs(np.insert(self.bounds, self.offsets[mask], bounds), offsets, self.size_hw)


def without_pairs(numbers: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The numbers that occur an odd number of times, of Int[K] ascending numbers."""
    equal = np.flatnonzero(numbers[1:] == numbers[:-1])
    if not len(equal):
        return numbers
    # Of n equal numbers, n - 1 equal the next one: every other of these, from the first.
    firsts = np.flatnonzero(np.diff(equal, prepend=-2) > 1)
    places = np.arange(len(equal)) - np.repeat(firsts, np.diff(firsts, append=len(equal)))
    pairs = equal[places % 2 == 0]
    is_kept = np.ones(len(numbers), dtype=np.bool_)
    is_kept[pairs] = is_kept[pairs + 1] = False
    return numbers[is_kept]


def serialized(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run the decorated functions one at a time, in one thread."""

    @wraps(function)
    def locked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _lock:
            return function(*args, **kwargs)

    return locked


def paste_runs(probabilities: Floats, boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Runs:
    """Resample masks bilinearly from their boxes to the image; pixels of at least 0.5 are set.

    Bit for bit the pixels of `detectron2.layers.mask_ops.paste_masks_in_image` on a CPU, in time
    proportional to the width of the boxes instead of their area. Along a column of pixels the
    probability is piecewise linear between the grid nodes, which are the centers of the mask's
    values. Therefore

    1. the grid cells between four nodes in which the probability crosses 0.5 are selected;
    2. where a column passes such a cell, the probability is interpolated at the cell's sides, and
       a division locates the boundary crossing between them, where a run starts or ends;
    3. ambiguous pixels, which are so close to 0.5 that rounding decides, are sampled with exactly
       Detectron2's operations.

    Each step processes the columns of all masks together, without the interpreter lock. Only a mask
    with very many ambiguous pixels is sampled at every pixel.

    Args:
        probabilities: Float32[N, M, M] in 0..1 over the boxes' extents; NaN counts as 0.
        boxes_xyxy: Float32[N, 4] in pixels, x1 <= x2 and y1 <= y2. Parts outside the image are cut
            off; a box without area has no pixels.
        size_hw: height and width of the image.
    """
    from d2serve.masks.columns import changes_by_columns  # imports torch

    # Cheaper than testing each value.
    has_nan = np.isnan(probabilities.sum())
    known = np.nan_to_num(probabilities, nan=0.0) if has_nan else probabilities
    margin = MARGIN_PER_CELL * probabilities.shape[-1]
    ambiguous = _ambiguous_pixels(known, margin, boxes_xyxy, size_hw)
    dense = ambiguous > MAX_AMBIGUOUS_PIXELS
    # An empty box has no pixels.
    boxes = np.where(dense[:, None], np.float32(0), boxes_xyxy)
    most = max(1.0, ambiguous[~dense].max(initial=0))
    together = int(min(max(1, AMBIGUOUS_PIXELS_TOGETHER / most), MASKS_TOGETHER))
    changes = changes_by_columns(known, boxes, size_hw, THRESHOLD, margin, together)
    runs = Runs.of_changes(changes, len(known), size_hw)
    for mask in np.flatnonzero(dense):
        bounds = paste_densely(known[mask], boxes_xyxy[mask], size_hw, THRESHOLD)
        runs = runs.with_mask(mask, bounds)
    return runs


def paste_densely(
    probabilities: Floats, box_xyxy: Floats, size_hw: tuple[int, int], threshold: float
) -> Integers:
    """Paste one mask by sampling every pixel of its box; returns its bounds as in `Runs`.

    Args:
        probabilities: Float32[M, M] in 0..1 over the box's extent; NaN counts as 0.
        box_xyxy: Float32[4] in pixels, with an area.
        size_hw: height and width of the image.
        threshold: minimum probability of a set pixel.
    """
    import torch  # slow, and a client without torch never pastes
    from torch.nn.functional import grid_sample

    from d2serve.masks.sampling import box_coordinates

    height, width = size_hw
    starts, ends = box_xyxy[:2], box_xyxy[2:]
    x, y = (
        _pixels(start, end, length)
        for start, end, length in zip(starts, ends, (width, height), strict=True)
    )
    mask = torch.from_numpy(np.nan_to_num(probabilities, nan=0.0))[None, None]
    across, down = (
        box_coordinates(*(torch.from_numpy(np.asarray(each)) for each in (pixels, start, end)))
        for pixels, start, end in zip((x, y), starts, ends, strict=True)
    )
    columns = np.zeros((len(x), height), dtype=np.bool_)
    block_columns = max(1, BLOCK_PIXELS // max(1, len(y)))
    for first in range(0, len(x), block_columns):
        block = slice(first, first + block_columns)
        grid = torch.stack(torch.meshgrid(across[block], down, indexing="ij"), dim=-1)
        sampled = grid_sample(mask, grid[None], align_corners=False)[0, 0]
        columns[block, y[0] : y[-1] + 1] = (sampled >= threshold).numpy()
    is_bound = np.diff(columns.ravel(), prepend=False, append=False)
    return np.flatnonzero(is_bound) + x[0] * height


def _pixels(start: np.float32, end: np.float32, length: int) -> Integers:
    """The columns, or rows, of the image that a box may touch."""
    first = int(np.clip(np.floor(start) - 1, 0, length - 1))
    return np.arange(first, int(np.clip(np.ceil(end) + 1, first + 1, length)))


def _ambiguous_pixels(
    probabilities: Floats, margin: float, boxes_xyxy: Floats, size_hw: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Float64[N]: the number of ambiguous pixels of each mask, estimated."""
    least, most = np.float32(THRESHOLD - margin), np.float32(THRESHOLD + margin)
    is_ambiguous = (probabilities >= least) & (probabilities <= most)
    values = max(1, probabilities.shape[-1] ** 2)
    # Few are, so this is faster than sums of booleans.
    owners = np.flatnonzero(is_ambiguous) // values
    shares = np.bincount(owners, minlength=len(probabilities)) / values
    height, width = size_hw
    inside = np.clip(boxes_xyxy.astype(np.float64), 0, (width, height, width, height))
    areas: npt.NDArray[np.float64] = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    return shares * areas
