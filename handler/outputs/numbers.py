"""Boxes, keypoints and scores as numbers of a text."""

from typing import Any

import numpy as np
import numpy.typing as npt

from handler.detections import Detections

BOX_DECIMALS = 3
SCORE_DECIMALS = 6


def rounded_pixels(values: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape, to a thousandth of a pixel."""
    return _rounded(values, BOX_DECIMALS)


def rounded_shares(values: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape, to a millionth: scores, and coordinates in 0..1."""
    return _rounded(values, SCORE_DECIMALS)


def rounded_share(value: float) -> float:
    """To a millionth."""
    return round(value, SCORE_DECIMALS)


def rounded_keypoints(keypoints: npt.NDArray[np.floating]) -> list[Any]:
    """Lists of the same shape [..., 3]: x and y as pixels are rounded, the score as shares are."""
    values = keypoints.astype(np.float64)
    values[..., :2] = values[..., :2].round(BOX_DECIMALS)
    values[..., 2] = values[..., 2].round(SCORE_DECIMALS)
    rows: list[Any] = values.tolist()
    return rows


def relative_boxes(detections: Detections) -> npt.NDArray[np.float64]:
    """Float64[N, 4] x1, y1, x2, y2 in 0..1 of the picture's width and height."""
    height, width = detections.size_hw
    return detections.boxes_xyxy / np.array([width, height, width, height], dtype=np.float64)


def _rounded(values: npt.NDArray[np.floating], decimals: int) -> list[Any]:
    # In double precision: a rounded float32 prints with all its digits.
    rows: list[Any] = values.astype(np.float64).round(decimals).tolist()
    return rows
