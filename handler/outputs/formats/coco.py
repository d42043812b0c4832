"""Format `coco`: COCO's results, https://cocodataset.org/#format-results."""

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.outputs.formats.result import Result
from handler.outputs.numbers import rounded_keypoints, rounded_pixels, rounded_shares
from handler.outputs.segmentations import segmentations


def coco_results(result: Result) -> list[dict[str, Any]]:
    """A result per instance; `image_id` is the picture's position, `category_id` the class index.

    `bbox` is x, y, width, height in pixels. `segmentation` is missing where there are no masks,
    `keypoints` x, y, score, x, y, score, ... where the model has none.
    """
    found = result.detections
    fields = {
        "category_id": found.classes.tolist(),
        "bbox": rounded_pixels(_xywh(found.boxes_xyxy)),
        "score": rounded_shares(found.scores),
    }
    if found.masks is not None:
        fields["segmentation"] = segmentations(found, result.mask_encoding)
    if found.keypoints is not None:
        fields["keypoints"] = _flat_keypoints(found.keypoints)
    return [
        {"image_id": result.position, **dict(zip(fields, values, strict=True))}
        for values in zip(*fields.values(), strict=True)
    ]


def _xywh(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    corners = boxes_xyxy.astype(np.float64)
    return np.hstack((corners[:, :2], corners[:, 2:] - corners[:, :2]))


def _flat_keypoints(keypoints: npt.NDArray[np.float32]) -> list[list[float]]:
    """In COCO a keypoint is a pixel's index, whose middle is half a pixel further."""
    indices = keypoints.astype(np.float64) - (0.5, 0.5, 0.0)
    return [list(chain.from_iterable(points)) for points in rounded_keypoints(indices)]
