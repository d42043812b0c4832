"""JSON formats of one image: default, Clarify, COCO, JumpStart; roboflow's has its own module."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from d2serve.detections import round_keypoints, round_pixels, round_scores
from d2serve.outputs.accept import JPEG
from d2serve.outputs.densepose import compressed_results, densepose_objects
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import Result, label_texts, relative_boxes, segmentations
from d2serve.outputs.roboflow import roboflow_object
from d2serve.outputs.segment_maps import segment_maps

# One image's part of a response: its result in a format, or an error's body.
Entry: TypeAlias = Any
# The format of SageMaker JumpStart, which contains the image itself.
JUMPSTART = "jumpstart"


def default_object(result: Result) -> dict[str, Any]:
    """Boxes and keypoints in pixels, `prediction` relative to the image's size.

    `mask_scores`, `keypoints`, `densepose`, `panoptic` and `semantic` are present if the model has
    them.
    """
    found, names = result.detections, result.model.class_names
    height, width = found.size_hw
    return {
        "labels": label_texts(found, names),
        "boxes": round_pixels(found.boxes_xyxy),
        "scores": round_scores(found.scores),
        "classes": found.classes.tolist(),
        "names": [names[index] for index in found.classes],
        "masks": segmentations(found, result.mask_encoding),
        **({} if found.mask_scores is None else {"mask_scores": round_scores(found.mask_scores)}),
        **({} if found.keypoints is None else {"keypoints": round_keypoints(found.keypoints)}),
        **({} if found.surfaces is None else {"densepose": densepose_objects(found)}),
        **segment_maps(result),
        "prediction": relative_rows(result),
        "image": {"width": width, "height": height},
    }


def relative_rows(result: Result) -> list[list[float]]:
    """Clarify object detection: [class, score, x1, y1, x2, y2] per instance, in 0..1."""
    found = result.detections
    columns = round_scores(np.column_stack((found.scores, relative_boxes(found))))
    return [[index, *row] for index, row in zip(found.classes.tolist(), columns, strict=True)]


def class_scores(result: Result) -> list[float]:
    """Clarify image classification: the best score of each class in class order, else 0."""
    best = np.zeros(len(result.model.class_names), dtype=np.float32)
    np.maximum.at(best, result.detections.classes, result.detections.scores)
    return round_scores(best)


def coco_results(result: Result) -> list[dict[str, Any]]:
    """COCO results; `image_id` is the image's position, `category_id` the class index."""
    found = result.detections
    rows = found.to_coco(result.position, mask_format=result.mask_encoding)
    if found.surfaces is None:
        return rows
    surfaces = compressed_results(found)
    return [{**row, "densepose": each} for row, each in zip(rows, surfaces, strict=True)]


def jumpstart_object(result: Result) -> dict[str, Any]:
    """SageMaker JumpStart: boxes in 0..1; `labels` are all class names, indexed by `classes`."""
    found = result.detections
    return {
        "normalized_boxes": round_scores(relative_boxes(found)),
        "classes": found.classes.tolist(),
        "scores": round_scores(found.scores),
        "labels": list(result.model.class_names),
        **(_jumpstart_masks(result) if found.has_masks else {}),
    }


def _jumpstart_masks(result: Result) -> dict[str, Any]:
    drawn = overlay_body(result.required_pixels, result.detections, result.model, JPEG)
    return {
        "masks": segmentations(result.detections, result.mask_encoding),
        "image_with_masks": base64.b64encode(drawn).decode("ascii"),
    }


def as_predictions(entries: Sequence[Entry]) -> dict[str, Any]:
    """{"predictions": [...]} with one entry per image."""
    return {"predictions": list(entries)}


def as_one_list(entries: Sequence[Entry]) -> list[Any]:
    """The lists of all images in one; an error gets the `image_id` of its image."""
    joined: list[Any] = []
    for position, entry in enumerate(entries):
        joined += entry if isinstance(entry, list) else [{"image_id": position, **entry}]
    return joined


@dataclass(frozen=True)
class Format:
    """A JSON format.

    Attributes:
        entry: formats the result of one image.
        join: combines the entries of several images.
        keeps_batches: whether an array of one image with a leading N gives a list of one.
    """

    entry: Callable[[Result], Entry]
    join: Callable[[Sequence[Entry]], Any]
    keeps_batches: bool = False


FORMATS = {
    "default": Format(default_object, as_predictions),
    "clarify": Format(relative_rows, list, keeps_batches=True),
    "clarify-scores": Format(class_scores, list, keeps_batches=True),
    "coco": Format(coco_results, as_one_list),
    JUMPSTART: Format(jumpstart_object, as_predictions),
    "roboflow": Format(roboflow_object, list, keeps_batches=True),
}
