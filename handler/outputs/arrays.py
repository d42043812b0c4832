"""Detections as NumPy's files."""

import io

import numpy as np
import numpy.typing as npt

from handler.detections import Detections
from handler.outputs.limits import require_bytes
from handler.outputs.numbers import relative_boxes
from handler.outputs.segmentations import pasted_masks


def npy_body(detections: Detections) -> bytes:
    """Float32[N, 6] rows of class, score, x1, y1, x2, y2, coordinates in 0..1 of the picture."""
    columns = (detections.classes, detections.scores, relative_boxes(detections))
    file = io.BytesIO()
    np.save(file, np.column_stack(columns).astype(np.float32))
    return file.getvalue()


def npz_body(detections: Detections, max_bytes: int) -> bytes:
    """Compressed `boxes`, `scores`, `classes` and `masks`.

    boxes are Float32[N, 4] x1, y1, x2, y2 in pixels, scores Float32[N], classes Int64[N], masks
    UInt8[N, H, W] of 0 and 1, or UInt8[0, H, W] where the model has no masks or none are wanted.

    Raises:
        RequestError: 413 where the arrays alone, not yet compressed, need more than `max_bytes`.
    """
    require_bytes(_array_bytes(detections), max_bytes)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        boxes=detections.boxes_xyxy,
        scores=detections.scores,
        classes=detections.classes,
        masks=_full_masks(detections),
    )
    return file.getvalue()


def _array_bytes(detections: Detections) -> int:
    lists = (detections.boxes_xyxy, detections.scores, detections.classes)
    height, width = detections.size_hw
    return sum(array.nbytes for array in lists) + _mask_count(detections) * height * width


def _full_masks(detections: Detections) -> npt.NDArray[np.uint8]:
    masks = np.zeros((_mask_count(detections), *detections.size_hw), dtype=np.uint8)
    for mask, region in zip(masks, pasted_masks(detections), strict=True):
        mask[region.window] = region.pixels
    return masks


def _mask_count(detections: Detections) -> int:
    return 0 if detections.masks is None else len(detections)
