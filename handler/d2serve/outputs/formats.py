"""JSON formats of one image: default, Clarify, COCO, JumpStart."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.outputs.accept import JPEG
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import (
    Result,
    label_texts,
    relative_boxes,
    rounded_keypoints,
    rounded_pixels,
    rounded_shares,
    segmentations,
)
from d2serve.outputs.segment_maps import segment_maps


def relative_rows(result: Result) -> list[list[float]]:
    """[class, score, x1, y1, x2, y2] per instance, coordinates in 0..1 (object detection)."""
    found = result.detections
    columns = rounded_shares(np.column_stack((found.scores, relative_boxes(found))))
    return [[index, *row] for index, row in zip(found.classes.tolist(), columns, strict=True)]


def class_scores(result: Result) -> list[float]:
    """Each class's best score in class order, 0 where it was not found (classification)."""
    best = np.zeros(len(result.model.class_names), dtype=np.float32)
    np.maximum.at(best, result.detections.classes, result.detections.scores)
    return rounded_shares(best)


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


def default_object(result: Result) -> dict[str, Any]:
    """Boxes and keypoints absolute in pixels, `prediction` relative to the picture's size.

    `keypoints`, `panoptic` and `semantic` are there where the model has them.
    """
    found, names = result.detections, result.model.class_names
    height, width = found.size_hw
    return {
        "labels": label_texts(found, names),
        "boxes": rounded_pixels(found.boxes_xyxy),
        "scores": rounded_shares(found.scores),
        "classes": found.classes.tolist(),
        "names": [names[index] for index in found.classes],
        "masks": segmentations(found, result.mask_encoding),
        **({} if found.keypoints is None else {"keypoints": rounded_keypoints(found.keypoints)}),
        **segment_maps(result),
        "prediction": relative_rows(result),
        "image": {"width": width, "height": height},
    }


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


# A picture's part of an answer: a format's own, or an error's body.
Entry = Any


def as_predictions(entries: Sequence[Entry]) -> dict[str, Any]:
    """{"predictions": [...]} with one entry per picture."""
    return {"predictions": list(entries)}


def as_one_list(entries: Sequence[Entry]) -> list[Any]:
    """All pictures' lists in one; an error tells which picture's it is."""
    joined: list[Any] = []
    for position, entry in enumerate(entries):
        joined += entry if isinstance(entry, list) else [{"image_id": position, **entry}]
    return joined


@dataclass(frozen=True)
class Format:
    """How one picture's entry looks, and how the entries of several are joined.

    `keeps_batches` where an array of one picture with a leading N is answered with a list of one.
    """

    entry: Callable[[Result], Entry]
    join: Callable[[Sequence[Entry]], Any]
    keeps_batches: bool = False


FORMATS = {
    "default": Format(default_object, as_predictions),
    "clarify": Format(relative_rows, list, keeps_batches=True),
    "clarify-scores": Format(class_scores, list, keeps_batches=True),
    "coco": Format(coco_results, as_one_list),
    "jumpstart": Format(jumpstart_object, as_predictions),
}
