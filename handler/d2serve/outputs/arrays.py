"""Detections as NPY and NPZ files."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, Panoptic
from d2serve.masks.paste import paste_masks
from d2serve.metadata import ModelFacts
from d2serve.outputs.result import Result, category_id, relative_boxes, require_bytes


def npy_body(detections: Detections) -> bytes:
    """Float32[N, 6] rows of class, score, x1, y1, x2, y2, coordinates in 0..1 of the picture."""
    columns = (detections.classes, detections.scores, relative_boxes(detections))
    file = io.BytesIO()
    np.save(file, np.column_stack(columns).astype(np.float32))
    return file.getvalue()


def npz_body(result: Result, max_bytes: int) -> bytes:
    """Compressed `boxes`, `scores`, `classes` and `masks`, and what else the model has.

    boxes are Float32[N, 4] x1, y1, x2, y2 in pixels, scores Float32[N], classes Int64[N], masks
    UInt8[N, H, W] of 0 and 1, or UInt8[0, H, W] where the model has no masks or none are wanted.
    Where the model has them, keypoints are Float32[N, K, 3] x, y in pixels and score, panoptic
    Int32[H, W] the id of each pixel's segment or 0, panoptic_segments Int64[S, 3] rows of id,
    category_id and whether it is a thing, and semantic Int32[H, W] stuff class indices.

    Raises:
        RequestError: 413 where the arrays alone, not yet compressed, need more than `max_bytes`.
    """
    found = result.detections
    arrays = {
        "boxes": found.boxes_xyxy,
        "scores": found.scores,
        "classes": found.classes,
        **_what_else_there_is(result),
    }
    height, width = found.size_hw
    size = sum(array.nbytes for array in arrays.values())
    require_bytes(size + _mask_count(found) * height * width, max_bytes)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, masks=_full_masks(found))
    return file.getvalue()


def _what_else_there_is(result: Result) -> dict[str, Any]:
    found = result.detections
    arrays: dict[str, Any] = {}
    if found.keypoints is not None:
        arrays["keypoints"] = found.keypoints
    if found.panoptic is not None:
        arrays["panoptic"] = found.panoptic.ids
        arrays["panoptic_segments"] = _segment_rows(found.panoptic, result.model)
    if found.semantic is not None:
        arrays["semantic"] = found.semantic
    return arrays


def _segment_rows(panoptic: Panoptic, model: ModelFacts) -> npt.NDArray[np.int64]:
    rows = [(each.id, category_id(each, model), each.is_thing) for each in panoptic.segments]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _full_masks(detections: Detections) -> npt.NDArray[np.uint8]:
    full = np.zeros((_mask_count(detections), *detections.size_hw), dtype=np.uint8)
    if detections.masks is not None:
        pasted = paste_masks(detections.masks, detections.boxes_xyxy, detections.size_hw)
        for mask, region in zip(full, pasted, strict=True):
            mask[region.window] = region.pixels
    return full


def _mask_count(detections: Detections) -> int:
    return 0 if detections.masks is None else len(detections)
