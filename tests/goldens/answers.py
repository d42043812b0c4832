"""Upstream's answers as files: JSON, masks as COCO RLE."""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from tests.goldens.upstream import UpstreamAnswer


def write_answer(path: Path, answer: UpstreamAnswer) -> None:
    masks = None
    if answer.masks is not None:
        masks = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in answer.masks]
        masks = [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in masks]
    content = {
        "boxes_xyxy": answer.boxes_xyxy.astype(float).round(4).tolist(),
        "scores": answer.scores.astype(float).round(6).tolist(),
        "classes": answer.classes.tolist(),
        "masks": masks,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_answer(path: Path) -> UpstreamAnswer:
    content = json.loads(path.read_text(encoding="utf-8"))
    masks = content["masks"]
    return UpstreamAnswer(
        boxes_xyxy=np.array(content["boxes_xyxy"], dtype=np.float32).reshape(-1, 4),
        scores=np.array(content["scores"], dtype=np.float32),
        classes=np.array(content["classes"], dtype=np.int64),
        masks=None if masks is None else np.array([coco.decode(rle) for rle in masks], dtype=bool),
    )
