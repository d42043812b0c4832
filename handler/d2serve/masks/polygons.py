"""Encode masks as COCO polygons."""

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import MaskRegion


def encode_polygons(region: MaskRegion) -> list[list[int]]:
    """Encode a mask as pixel-exact outlines [[x, y, x, y, ...], ...] in the image's coordinates.

    Points are corners of pixels: pixel (x, y) is the square from (x, y) to (x + 1, y + 1). COCO
    polygons cannot express holes, which count as set. Pixels that touch at a corner share a
    polygon. An empty mask has no polygon.
    """
    offset = (2 * region.x, 2 * region.y)
    outlines, _ = cv2.findContours(
        _corner_grid(region.pixels), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset
    )
    corners = (_with_sharp_corners(np.asarray(outline[:, 0], np.int32)) for outline in outlines)
    return [(points // 2).ravel().tolist() for points in corners]


def _corner_grid(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """UInt8[2h + 1, 2w + 1]: pixels at odd coordinates, their corners at even ones.

    OpenCV's contours run through the centers of the outermost elements, which are corners here.
    """
    height, width = pixels.shape
    grid = np.zeros((2 * height + 1, 2 * width + 1), dtype=np.uint8)
    grid[1::2, 1::2] = pixels
    return np.asarray(cv2.dilate(grid, np.ones((3, 3), dtype=np.uint8)), dtype=np.uint8)


def _with_sharp_corners(points: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Int32[K, 2] on the corner grid, with the inner corners that OpenCV's contours cut off.

    A cut is a diagonal step between two odd coordinates; the corner beside it has even x and y.
    """
    following = np.roll(points, -1, axis=0)
    even = points % 2 == 0
    is_cut = (points != following).all(axis=1)
    return np.where(even, points, following)[even.all(axis=1) | is_cut]
