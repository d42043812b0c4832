"""Upstream's answers as files: JSON, masks and maps as COCO RLE."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from tests.goldens.upstream import UpstreamAnswer


def write_answer(path: Path, answer: UpstreamAnswer) -> None:
    content = {
        "boxes_xyxy": answer.boxes_xyxy.astype(float).round(4).tolist(),
        "scores": answer.scores.astype(float).round(6).tolist(),
        "classes": answer.classes.tolist(),
        "masks": None if answer.masks is None else [_rle(mask) for mask in answer.masks],
        "keypoints": None
        if answer.keypoints is None
        else answer.keypoints.astype(float).round(4).tolist(),
        "semantic": _map_rles(answer.semantic),
        "panoptic": _map_rles(answer.panoptic),
    }
    path.parent.mkdir(exist_ok=True)
    given = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(given) + "\n", encoding="utf-8")


def read_answer(path: Path) -> UpstreamAnswer:
    content = json.loads(path.read_text(encoding="utf-8"))
    masks, keypoints = content.get("masks"), content.get("keypoints")
    return UpstreamAnswer(
        boxes_xyxy=np.array(content["boxes_xyxy"], dtype=np.float32).reshape(-1, 4),
        scores=np.array(content["scores"], dtype=np.float32),
        classes=np.array(content["classes"], dtype=np.int64),
        masks=None if masks is None else np.array([coco.decode(rle) for rle in masks], dtype=bool),
        keypoints=None if keypoints is None else np.array(keypoints, dtype=np.float32),
        semantic=_map(content.get("semantic")),
        panoptic=_map(content.get("panoptic")),
    )


def _rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _map_rles(values: npt.NDArray[np.int32] | None) -> dict[str, dict[str, Any]] | None:
    if values is None:
        return None
    return {str(value): _rle(values == value) for value in np.unique(values)}


def _map(rles: Mapping[str, dict[str, Any]] | None) -> npt.NDArray[np.int32] | None:
    if rles is None:
        return None
    layers = [coco.decode(rle).astype(np.int32) * int(value) for value, rle in rles.items()]
    return np.sum(layers, axis=0, dtype=np.int32)
