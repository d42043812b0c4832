"""Places of labels, so that they cover each other as little as possible."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Rows of text at a box, counted from its upper edge: above it, inside, and the next ones of each.
# Boxes of masks that cover the whole image have rows inside only.
ROWS = (-1, 0, -2, 1, -3, 2, 3, 4, 5)


def place_labels(
    boxes_xyxy: npt.NDArray[np.floating],
    sizes_wh: Sequence[tuple[float, float]],
    size_hw: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Float64[N, 2] x, y of the labels' top left corners in pixels, inside the image.

    A label is above its box, or inside where the image ends. If it would cover a label of an
    earlier box, it is in another row at the box's left edge, or below the box; if all of them are
    taken, where it covers the least.

    Args:
        boxes_xyxy: Float[N, 4] in pixels, those with the most important labels first.
        sizes_wh: width and height of each label in pixels.
        size_hw: height and width of the image.

    Examples:
        >>> box = [10, 50, 90, 90]
        >>> place_labels(np.array([box, box], float), [(40, 12), (40, 12)], (100, 100)).tolist()
        [[10.0, 38.0], [10.0, 50.0]]
    """
    placed = np.zeros((len(sizes_wh), 4))
    for index, (box, size_wh) in enumerate(zip(boxes_xyxy, sizes_wh, strict=True)):
        candidates = _candidates(box.tolist(), size_wh, size_hw)
        covered = _covered_areas(candidates, placed[:index])
        # The first one of equal candidates.
        placed[index] = candidates[covered.argmin()]
    return placed[:, :2]


def _candidates(
    box_xyxy: Sequence[float], size_wh: tuple[float, float], size_hw: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Float64[K, 4]: rectangles for a label, the usual place first."""
    (x1, y1, _, y2), (width, height) = box_xyxy, size_wh
    lowest = max(size_hw[0] - height, 0)
    x = min(max(x1, 0), max(size_hw[1] - width, 0))
    tops = [*(y1 + row * height for row in ROWS), y2]
    inside = [y for y in tops if 0 <= y <= lowest] or [min(max(y1, 0), lowest)]
    return np.array([(x, y, x + width, y + height) for y in inside])


def _covered_areas(
    candidates: npt.NDArray[np.float64], placed: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Float64[K]: the area that each candidate shares with placed rectangles."""
    starts = np.maximum(candidates[:, None, :2], placed[None, :, :2])
    ends = np.minimum(candidates[:, None, 2:], placed[None, :, 2:])
    areas: npt.NDArray[np.float64] = (ends - starts).clip(0).prod(axis=2).sum(axis=1)
    return areas
