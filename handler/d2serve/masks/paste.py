"""Mask probabilities over boxes -> masks of image pixels, cropped to the pixels they touch."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.masks.runs import Runs, paste_runs


@dataclass(frozen=True)
class MaskRegion:
    """A cropped mask: Bool[h, w] whose top left pixel is (x, y) in the image."""

    pixels: npt.NDArray[np.bool_]
    x: int
    y: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that the region covers."""
        height, width = self.pixels.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def full(self, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Bool[H, W]: the mask in the whole image."""
        mask = np.zeros(size_hw, dtype=np.bool_)
        mask[self.window] = self.pixels
        return mask


def paste_mask(
    probabilities: npt.NDArray[np.float32],
    box_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
) -> MaskRegion:
    """Paste one mask, as `paste_masks` does.

    Args:
        probabilities: Float32[M, M] in 0..1 over the box's extent.
        box_xyxy: Float32[4] in pixels.
        size_hw: height and width of the image.
    """
    [region] = paste_masks(probabilities[None], box_xyxy[None], size_hw)
    return region


def paste_masks(
    probabilities: npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
) -> Iterator[MaskRegion]:
    """Paste masks as `paste_runs` does; yields one region per mask."""
    yield from regions(paste_runs(probabilities, boxes_xyxy, size_hw))


def regions(runs: Runs) -> Iterator[MaskRegion]:
    """Yield each mask, cropped to the rows and columns that it touches; 0 x 0 if it is empty."""
    height, _ = runs.size_hw
    for bounds in runs:
        if len(bounds):
            yield _region(bounds, height)
        else:
            yield MaskRegion(np.zeros((0, 0), dtype=np.bool_), 0, 0)


def _region(bounds: npt.NDArray[np.int64], height: int) -> MaskRegion:
    columns, rows = np.divmod(np.stack((bounds[::2], bounds[1::2] - 1)), height)
    left, right = int(columns[0, 0]), int(columns[1, -1]) + 1
    # A run that continues in the next column contains the last row and the first.
    continues = bool((columns[0] != columns[1]).any())
    top, bottom = (0, height) if continues else (int(rows[0].min()), int(rows[1].max()) + 1)
    inside = (columns - left) * (bottom - top) + rows - top + [[0], [1]]
    lengths = np.diff(inside.T.ravel(), prepend=0, append=(right - left) * (bottom - top))
    # Unset and set runs alternate.
    states = np.arange(len(lengths), dtype=np.uint8) % 2
    pixels = cv2.transpose(np.repeat(states, lengths).reshape(right - left, bottom - top))
    return MaskRegion(np.asarray(pixels).view(np.bool_), left, top)


def label_regions(labels: npt.NDArray[np.int32]) -> Iterator[tuple[int, MaskRegion]]:
    """Yield each label above 0 in a map, ascending, with the mask of its pixels.

    Args:
        labels: Int32[H, W].

    Yields:
        A label and its mask, cropped to the bounding box of its pixels.
    """
    from scipy.ndimage import find_objects  # slow to import, and needed for panoptic maps only

    for label, window in enumerate(find_objects(labels), start=1):
        if window is not None:
            rows, columns = window
            yield label, MaskRegion(labels[window] == label, columns.start, rows.start)
