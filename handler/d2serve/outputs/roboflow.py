"""Detections -> JSON of roboflow's inference API, which `inference-sdk` and supervision read."""

import uuid
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, round_keypoints, round_pixels, round_scores
from d2serve.masks.paste import MaskRegion
from d2serve.outputs.result import Result

# supervision drops the masks of all instances if one has fewer points.
MIN_POINTS = 3


def roboflow_object(result: Result) -> dict[str, Any]:
    """Boxes as center and size in pixels, one object per instance.

    Masks are `rle_mask`, COCO's compressed RLE, or `points`, the outline of the largest part
    through the centers of its pixels. `mask_score` and `keypoints` are present if the model has
    them.
    """
    height, width = result.detections.size_hw
    return {
        "image": {"width": width, "height": height},
        "predictions": _predictions(result),
    }


def _predictions(result: Result) -> list[dict[str, Any]]:
    found, names = result.detections, result.model.class_names
    centers_wh = round_pixels(_centers_wh(found.boxes_xyxy))
    scores = round_scores(found.scores)
    return [
        {
            **dict(zip(("x", "y", "width", "height"), center_wh, strict=True)),
            "confidence": score,
            "class": names[index],
            "class_id": index,
            "detection_id": str(uuid.uuid4()),
            **mask,
            **mask_score,
            **keypoints,
        }
        for center_wh, score, index, mask, mask_score, keypoints in zip(
            centers_wh,
            scores,
            found.classes.tolist(),
            _masks(result),
            _mask_scores(found),
            _keypoints(found),
            strict=True,
        )
    ]


def _centers_wh(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Float64[N, 4]: x and y of the center, width, height."""
    first, last = np.split(boxes_xyxy.astype(np.float64), 2, axis=1)
    return np.hstack(((first + last) / 2, last - first))


def _masks(result: Result) -> list[dict[str, Any]]:
    found = result.detections
    if not found.has_masks:
        return [{}] * len(found)
    if result.mask_encoding == "rle":
        return [{"rle_mask": mask} for mask in found.masks_rle()]
    centers = _centers_wh(found.boxes_xyxy)[:, :2]
    return [
        {"points": _outline(region, center)}
        for region, center in zip(found.mask_regions(), centers, strict=True)
    ]


def _outline(region: MaskRegion, box_center: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    """The outline of the largest part of a mask; the box's center for an empty mask."""
    outlines, _ = cv2.findContours(
        region.pixels.view(np.uint8),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(region.x, region.y),
    )
    largest = max(outlines, key=_filled_pixels, default=None)
    points = [box_center.round()] if largest is None else list(largest[:, 0])
    points += points[-1:] * (MIN_POINTS - len(points))
    return [{"x": float(x), "y": float(y)} for x, y in points]


def _filled_pixels(outline: npt.NDArray[Any]) -> float:
    """Number of pixels on and inside of an outline, roughly: one without an area has its length."""
    return cv2.contourArea(outline) + cv2.arcLength(outline, closed=True) / 2 + 1


def _mask_scores(found: Detections) -> list[dict[str, Any]]:
    if found.mask_scores is None:
        return [{}] * len(found)
    return [{"mask_score": score} for score in round_scores(found.mask_scores)]


def _keypoints(found: Detections) -> list[dict[str, Any]]:
    if found.keypoints is None:
        return [{}] * len(found)
    return [
        {
            "keypoints": [
                {"x": x, "y": y, "confidence": score, "class_id": index, "class": str(index)}
                for index, (x, y, score) in enumerate(points)
            ]
        }
        for points in round_keypoints(found.keypoints)
    ]
