"""Detections as NPY and NPZ files."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections
from d2serve.masks.panoptic import Panoptic
from d2serve.metadata import ModelMetadata
from d2serve.outputs.result import Result, category_id, check_size, relative_boxes

# Of a pixel: part, U and V, and the instance.
SURFACE_BYTES = 3 + 4


def npy_body(detections: Detections) -> bytes:
    """Float32[N, 6] rows of class, score, x1, y1, x2, y2, coordinates in 0..1 of the image."""
    columns = (detections.classes, detections.scores, relative_boxes(detections))
    file = io.BytesIO()
    np.save(file, np.column_stack(columns).astype(np.float32))
    return file.getvalue()


def npz_body(result: Result, max_bytes: int) -> bytes:
    """Compressed `boxes`, `scores`, `classes` and `masks`, and the model's optional arrays.

    boxes are Float32[N, 4] x1, y1, x2, y2 in pixels, scores Float32[N], classes Int64[N], masks
    UInt8[N, H, W] of 0 and 1, or UInt8[0, H, W] if the model has no masks or none are requested.
    If the model has them, mask_scores are Float32[N], keypoints Float32[N, K, 3] x, y in pixels and
    score, densepose UInt8[3, H, W] part, U and V of the best instance at each pixel and
    densepose_instances Int32[H, W] its position + 1 or 0, panoptic Int32[H, W] the id of each
    pixel's segment or 0, panoptic_segments Int64[S, 3] rows of id, category_id and whether it is a
    thing, and semantic Int32[H, W] stuff class indices.

    Raises:
        RequestError: 413, the arrays alone, before compression, exceed `max_bytes`.
    """
    found = result.detections
    arrays: dict[str, Any] = {
        "boxes": found.boxes_xyxy,
        "scores": found.scores,
        "classes": found.classes,
        **_optional_arrays(result),
    }
    height, width = found.size_hw
    mask_count = len(found) if found.has_masks else 0
    size = sum(array.nbytes for array in arrays.values()) + mask_count * height * width
    if found.surfaces is not None:
        check_size(size + SURFACE_BYTES * height * width, max_bytes)
        arrays["densepose"], arrays["densepose_instances"] = found.surface_image()
    check_size(size, max_bytes)
    masks = (
        found.masks_dense().view(np.uint8)
        if found.has_masks
        else np.zeros((0, height, width), dtype=np.uint8)
    )
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, masks=masks)
    return file.getvalue()


def _optional_arrays(result: Result) -> dict[str, Any]:
    found = result.detections
    arrays: dict[str, Any] = {}
    if found.mask_scores is not None:
        arrays["mask_scores"] = found.mask_scores
    if found.keypoints is not None:
        arrays["keypoints"] = found.keypoints
    if found.panoptic is not None:
        arrays["panoptic"] = found.panoptic.ids
        arrays["panoptic_segments"] = _segment_rows(found.panoptic, result.model)
    if found.semantic is not None:
        arrays["semantic"] = found.semantic
    return arrays


def _segment_rows(panoptic: Panoptic, model: ModelMetadata) -> npt.NDArray[np.int64]:
    rows = [
        (segment.id, category_id(segment, model), segment.is_thing) for segment in panoptic.segments
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
