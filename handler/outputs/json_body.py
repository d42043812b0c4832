"""Detections -> the contract's JSON object."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.detections import Detections
from handler.errors import RequestError
from handler.masks.paste import paste_mask
from handler.masks.rle import encode_rle

BOX_DECIMALS = 3
SCORE_DECIMALS = 6


def json_body(outcomes: Sequence[Detections | RequestError], names: Sequence[str]) -> bytes:
    """One picture's object, or for several {"predictions": [...]} with errors in their places."""
    objects = [
        outcome.body() if isinstance(outcome, RequestError) else prediction(outcome, names)
        for outcome in outcomes
    ]
    content = objects[0] if len(objects) == 1 else {"predictions": objects}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def prediction(detections: Detections, names: Sequence[str]) -> dict[str, Any]:
    """The object of one picture: boxes absolute in pixels, `prediction` relative to its size."""
    height, width = detections.size_hw
    return {
        "labels": label_texts(detections, names),
        "boxes": _rounded(detections.boxes_xyxy, BOX_DECIMALS),
        "scores": _rounded(detections.scores, SCORE_DECIMALS),
        "classes": detections.classes.tolist(),
        "names": [names[index] for index in detections.classes],
        "masks": _rle_masks(detections),
        "prediction": relative_rows(detections),
        "image": {"width": width, "height": height},
    }


def label_texts(detections: Detections, names: Sequence[str]) -> list[str]:
    """Such as "horse 99%", as people read them."""
    return [
        f"{names[index]} {score:.0%}"
        for index, score in zip(detections.classes, detections.scores, strict=True)
    ]


def relative_rows(detections: Detections) -> list[list[float]]:
    """[class, score, x1, y1, x2, y2] per instance, coordinates in 0..1 (SageMaker Clarify)."""
    height, width = detections.size_hw
    relative = detections.boxes_xyxy / np.array([width, height, width, height])
    columns = np.column_stack((detections.scores, relative))
    return [
        [index, *row]
        for index, row in zip(
            detections.classes.tolist(), _rounded(columns, SCORE_DECIMALS), strict=True
        )
    ]


def _rle_masks(detections: Detections) -> list[dict[str, Any]]:
    if detections.masks is None:
        return []
    return [
        encode_rle(paste_mask(mask, box, detections.size_hw), detections.size_hw)
        for mask, box in zip(detections.masks, detections.boxes_xyxy, strict=True)
    ]


def _rounded(values: npt.NDArray[np.floating], decimals: int) -> list[Any]:
    # In double precision: a rounded float32 prints with all its digits.
    rows: list[Any] = values.astype(np.float64).round(decimals).tolist()
    return rows
