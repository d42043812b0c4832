"""Format `jumpstart`: what the detectors of SageMaker JumpStart answer when asked verbosely."""

import base64
from typing import Any

from handler.outputs.accept import JPEG
from handler.outputs.formats.result import Result
from handler.outputs.numbers import relative_boxes, rounded_shares
from handler.outputs.overlay import overlay_body
from handler.outputs.segmentations import segmentations


def jumpstart_object(result: Result) -> dict[str, Any]:
    """Boxes in 0..1; `labels` are all class names, which `classes` index."""
    found = result.detections
    return {
        "normalized_boxes": rounded_shares(relative_boxes(found)),
        "classes": found.classes.tolist(),
        "scores": rounded_shares(found.scores),
        "labels": list(result.model.class_names),
        **({} if found.masks is None else _mask_fields(result)),
    }


def _mask_fields(result: Result) -> dict[str, Any]:
    drawn = overlay_body(result.picture, result.detections, result.model, JPEG)
    return {
        "masks": segmentations(result.detections, result.mask_encoding),
        "image_with_masks": base64.b64encode(drawn).decode("ascii"),
    }
