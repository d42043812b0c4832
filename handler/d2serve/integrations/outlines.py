"""Polygons that people can edit: outlines of masks with few points."""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import MaskRegion
from d2serve.masks.polygons import encode_polygons

DEFAULT_TOLERANCE_PX = 1.0
MIN_POINTS = 3


def outlines(region: MaskRegion, tolerance_px: float) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the outline of each part of a mask, without holes.

    Args:
        region: the mask.
        tolerance_px: maximum distance of the mask's exact outline from the simplified one; 0 for
            the exact outline. A part that would collapse to a line keeps its exact outline.

    Yields:
        Float64[N, 2]: x and y of the points in pixels, where pixel (x, y) is the square from (x, y)
        to (x + 1, y + 1); N is at least 3.
    """
    for polygon in encode_polygons(region):
        exact = np.asarray(polygon, np.int32).reshape(-1, 1, 2)
        points = cv2.approxPolyDP(exact, tolerance_px, closed=True)
        chosen = points if len(points) >= MIN_POINTS else exact
        yield chosen[:, 0].astype(np.float64)
