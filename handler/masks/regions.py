"""A map of labels -> a mask of each label."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from handler.masks.paste import MaskRegion


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
