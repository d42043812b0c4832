"""Masks that are 0.5 nearly everywhere, as an untrained head gives them, pixel by pixel.

Rounding alone decides each pixel there, so that `handler.masks.runs` would single out all of them.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from handler.masks.sampling import box_coordinates

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
