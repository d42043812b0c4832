"""Detections for supervision: `Detections` with masks, and `KeyPoints`.

supervision also reads a server's responses itself: `supervision.Detections.from_inference` with the
option `format=roboflow`.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from d2serve.detections import Detections
from d2serve.integrations.optional import require_library

if TYPE_CHECKING:
    import supervision

# supervision's name of the field with the class names.
CLASS_NAME = "class_name"


def to_supervision(detections: Detections) -> "supervision.Detections":
    """Convert the instances of one image, for supervision's annotators, trackers and metrics.

    Args:
        detections: of one image.

    Returns:
        `xyxy` Float32[N, 4] in pixels, `mask` Bool[N, H, W] or None, `confidence` Float32[N],
        `class_id` Int64[N] and the names in `data["class_name"]`.

    Raises:
        CommandError: supervision is not installed.

    Examples:
        >>> [detections] = model.predict("street.jpg")  # doctest: +SKIP
        >>> converted = to_supervision(detections)  # doctest: +SKIP
        >>> supervision.MaskAnnotator().annotate(image, converted)  # doctest: +SKIP
    """
    return require_library("supervision").Detections(
        xyxy=detections.boxes_xyxy,
        mask=detections.masks_dense() if detections.has_masks else None,
        confidence=detections.scores,
        class_id=detections.classes,
        data=_names(detections),
    )


def to_supervision_keypoints(detections: Detections) -> "supervision.KeyPoints":
    """Convert the keypoints of one image.

    Returns:
        `xy` Float32[N, K, 2] in pixels, `keypoint_confidence` Float32[N, K], the scores of the
        instances as `detection_confidence`, `class_id` and the names in `data["class_name"]`.

    Raises:
        CommandError: supervision is not installed.
        ValueError: the model has no keypoints.
    """
    if detections.keypoints is None:
        raise ValueError("keypoints is None: the model has no keypoints; use to_supervision")
    return require_library("supervision").KeyPoints(
        xy=detections.keypoints[..., :2],
        keypoint_confidence=detections.keypoints[..., 2],
        detection_confidence=detections.scores,
        class_id=detections.classes,
        data=_names(detections),
    )


def _names(detections: Detections) -> dict[str, Any]:
    return {CLASS_NAME: np.array(detections.class_names, dtype=str)}
