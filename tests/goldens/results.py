"""Upstream's results as JSON files, with masks and maps as COCO RLE."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from tests.goldens.upstream import UpstreamResult


def write_result(path: Path, result: UpstreamResult) -> None:
    """Write a result; its fields that are None are left out."""
    content = {
        "boxes_xyxy": result.boxes_xyxy.astype(float).round(4).tolist(),
        "scores": result.scores.astype(float).round(6).tolist(),
        "classes": result.classes.tolist(),
        "masks": None if result.masks is None else [_rle(mask) for mask in result.masks],
        "mask_scores": None
        if result.mask_scores is None
        else result.mask_scores.astype(float).round(6).tolist(),
        "keypoints": None
        if result.keypoints is None
        else result.keypoints.astype(float).round(4).tolist(),
        "semantic": _rle_by_value(result.semantic),
        "panoptic": _rle_by_value(result.panoptic),
    }
    path.parent.mkdir(exist_ok=True)
    present = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(present) + "\n", encoding="utf-8")


def read_result(path: Path) -> UpstreamResult:
    """Read what `write_result` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    masks, keypoints = content.get("masks"), content.get("keypoints")
    mask_scores = content.get("mask_scores")
    return UpstreamResult(
        boxes_xyxy=np.array(content["boxes_xyxy"], dtype=np.float32).reshape(-1, 4),
        scores=np.array(content["scores"], dtype=np.float32),
        classes=np.array(content["classes"], dtype=np.int64),
        masks=None if masks is None else np.array([coco.decode(rle) for rle in masks], dtype=bool),
        mask_scores=None if mask_scores is None else np.array(mask_scores, dtype=np.float32),
        keypoints=None if keypoints is None else np.array(keypoints, dtype=np.float32),
        semantic=_map_from_rles(content.get("semantic")),
        panoptic=_map_from_rles(content.get("panoptic")),
    )


def _rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _rle_by_value(values: npt.NDArray[np.int32] | None) -> dict[str, dict[str, Any]] | None:
    if values is None:
        return None
    return {str(value): _rle(values == value) for value in np.unique(values)}


def _map_from_rles(rles: Mapping[str, dict[str, Any]] | None) -> npt.NDArray[np.int32] | None:
    if rles is None:
        return None
    layers = [coco.decode(rle).astype(np.int32) * int(value) for value, rle in rles.items()]
    return np.sum(layers, axis=0, dtype=np.int32)
