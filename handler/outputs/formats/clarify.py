"""Formats `clarify` and `clarify-scores`: what SageMaker Clarify reads."""

import numpy as np

from handler.outputs.formats.result import Result
from handler.outputs.numbers import relative_boxes, rounded_shares


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
