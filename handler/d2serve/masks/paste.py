"""Mask probabilities over boxes -> masks of image pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.masks.runs import Runs, paste_runs


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
    """One mask's pixels in the picture, as `paste_masks` finds them.

    Args:
        probabilities: Float32[M, M] in 0..1 over the box's extent.
        box_xyxy: Float32[4] in pixels.
        size_hw: height and width of the picture.
    """
    [region] = paste_masks(probabilities[None], box_xyxy[None], size_hw)
    return region


def paste_masks(
    probabilities: npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[np.float32],
    size_hw: tuple[int, int],
) -> Iterator[MaskRegion]:
    """Each mask's pixels in the picture, one at a time, as `paste_runs` finds them."""
    yield from regions(paste_runs(probabilities, boxes_xyxy, size_hw))


def regions(runs: Runs) -> Iterator[MaskRegion]:
    """Each mask's pixels, one at a time: the rows and columns that it touches, none of an empty."""
    height, _ = runs.size_hw
    for bounds in runs:
        if len(bounds):
            yield _region(bounds, height)
        else:
            yield MaskRegion(np.zeros((0, 0), dtype=np.bool_), 0, 0)


def _region(bounds: npt.NDArray[np.int64], height: int) -> MaskRegion:
    columns, rows = np.divmod(np.stack((bounds[::2], bounds[1::2] - 1)), height)
    left, right = int(columns[0, 0]), int(columns[1, -1]) + 1
    # A run that goes on in the next column has passed both the last row and the first.
    goes_on = bool((columns[0] != columns[1]).any())
    top, bottom = (0, height) if goes_on else (int(rows[0].min()), int(rows[1].max()) + 1)
    inside = (columns - left) * (bottom - top) + rows - top + [[0], [1]]
    lengths = np.diff(inside.T.ravel(), prepend=0, append=(right - left) * (bottom - top))
    turns = np.arange(len(lengths), dtype=np.uint8) % 2
    pixels = cv2.transpose(np.repeat(turns, lengths).reshape(right - left, bottom - top))
    return MaskRegion(np.asarray(pixels).view(np.bool_), left, top)


def label_regions(labels: npt.NDArray[np.int32]) -> Iterator[tuple[int, MaskRegion]]:
    """Each label above 0 that is in the map, in rising order, with its pixels.

    Args:
        labels: Int32[H, W]; the masks cost as much memory as the labels' bounding boxes, one at a
            time.

    Yields:
        A label and its mask, which is no larger than the bounding box of the label's pixels.
    """
    from scipy.ndimage import find_objects  # takes its time to load, and only panoptic maps need it

    for label, window in enumerate(find_objects(labels), start=1):
        if window is not None:
            rows, columns = window
            yield label, MaskRegion(labels[window] == label, columns.start, rows.start)
