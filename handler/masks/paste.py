"""Mask probabilities over a box -> a mask of the picture's pixels."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.5


@dataclass(frozen=True)
class MaskRegion:
    """A mask where it may be set: Bool[h, w] whose top left pixel is (x, y) of the picture."""

    pixels: npt.NDArray[np.bool_]
    x: int
    y: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and the columns of the picture that the region covers."""
        height, width = self.pixels.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def full(self, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Bool[H, W]: the mask in the whole picture."""
        mask = np.zeros(size_hw, dtype=np.bool_)
        mask[self.window] = self.pixels
        return mask


def paste_mask(
    probabilities: npt.NDArray[np.float32],
    box_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
) -> MaskRegion:
    """Resamples a mask from its box to the picture's pixel grid, bilinear, at least 0.5 is set.

    The same pixels as `detectron2.layers.mask_ops.paste_masks_in_image`. Bilinear sampling on an
    upright grid is separable, so it is two small matrix products instead of a sampling per pixel.

    Args:
        probabilities: Float32[M, M] in 0..1 over the box's extent.
        box_xyxy: Float32[4] in pixels, within the picture.
        size_hw: height and width of the picture.
    """
    height, width = size_hw
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, width)
    top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, height)
    side = len(probabilities)
    rows = _interpolation(np.arange(top, bottom), y1, y2, side)
    columns = _interpolation(np.arange(left, right), x1, x2, side)
    return MaskRegion(rows @ probabilities @ columns.T >= THRESHOLD, left, top)


def _interpolation(
    pixels: npt.NDArray[np.int_], start: float, end: float, side: int
) -> npt.NDArray[np.float32]:
    """Float32[P, side]: how much each mask cell weighs at each pixel's centre, nothing outside."""
    cells = (pixels + 0.5 - start) / (end - start) * side - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(cells[:, None] - np.arange(side)))
    return weights.astype(np.float32)
