"""What our own network found, on the device -> Detections, on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from handler.detections import Detections
from handler.rcnn.instances import Found
from handler.rcnn.transfer import to_host


def detections_of(found: Sequence[Found], sizes_hw: Sequence[tuple[int, int]]) -> list[Detections]:
    """Brings all pictures' results to the host in one copy; boxes that are empty are left out.

    Args:
        found: one per picture.
        sizes_hw: heights and widths of the pictures.
    """
    fields = [_fields(image) for image in found]
    on_host = iter(to_host([tensor for image in fields for tensor in image.values()]))
    return [
        _detections({name: next(on_host).numpy() for name in image}, size_hw)
        for image, size_hw in zip(fields, sizes_hw, strict=True)
    ]


def _fields(found: Found) -> dict[str, Tensor]:
    """By the names that `Detections` has for them."""
    own = found.instances
    fields = {
        "boxes_xyxy": own.boxes,
        "scores": own.scores,
        "classes": own.classes,
        "masks": own.masks,
        "keypoints": own.keypoints,
        "semantic": found.semantic,
    }
    return {name: tensor for name, tensor in fields.items() if tensor is not None}


def _detections(fields: dict[str, Any], size_hw: tuple[int, int]) -> Detections:
    semantic = fields.pop("semantic", None)
    boxes = fields["boxes_xyxy"]
    full = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not full.all():
        fields = {name: values[full] for name, values in fields.items()}
    # Numbers came as float32 if they came from a GPU.
    fields["classes"] = fields["classes"].astype(np.int64, copy=False)
    if semantic is not None:
        fields["semantic"] = semantic.astype(np.int32, copy=False)
    return Detections(size_hw, **fields)
