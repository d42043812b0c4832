"""Box and mask AP of the bundled model in each precision, on its held-out pictures.

python -m bench.accuracy [--pictures 400] [--precisions fp32 bf16] [--threads 2]
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from handler.detections import Detections
from handler.detector.native import NativeDetector
from handler.masks.paste import paste_mask
from handler.rcnn.build import build_model
from handler.rcnn.checkpoint import read_checkpoint
from handler.rcnn.config import load_config
from handler.rcnn.config.model import RCNNConfig
from handler.settings import PRECISIONS, Settings
from scripts.shapes.outlines import CLASS_NAMES
from scripts.shapes.scenes import Scene, generate_scene

SHAPES = Path(__file__).resolve().parents[1] / "models" / "shapes"
CPU = torch.device("cpu")
# As `scripts.shapes.evaluation` has them.
FIRST_HELDOUT_SEED = 500_000
SCORE_THRESHOLD = 0.05
TASKS = ("bbox", "segm")


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each precision."""
    parser = argparse.ArgumentParser(description="AP of the bundled model in each precision")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    scenes = heldout_scenes(given.pictures)
    print("precision   box AP   mask AP")
    for precision in given.precisions:
        box_ap, mask_ap = average_precision(detector_in(precision), scenes)
        print(f"{precision:9} {box_ap:8.2f} {mask_ap:9.2f}", flush=True)
    return 0


def heldout_scenes(pictures: int) -> list[Scene]:
    """The first of the pictures that MODEL_CARD.md's figures are measured on."""
    return [generate_scene(FIRST_HELDOUT_SEED + index) for index in range(pictures)]


def detector_in(precision: str) -> NativeDetector:
    """The bundled model, which lets through scores as low as is usual for AP."""
    config = load_config(SHAPES / "config.yaml")
    family = config.family
    assert isinstance(family, RCNNConfig)
    selection = replace(family.roi_heads.selection, score_threshold=SCORE_THRESHOLD)
    family = replace(family, roi_heads=replace(family.roi_heads, selection=selection))
    weights = read_checkpoint(SHAPES / "model_final.pth")
    model = build_model(replace(config, family=family), weights, CPU)
    return NativeDetector(model, CPU, Settings(precision=precision))


def average_precision(detector: NativeDetector, scenes: Sequence[Scene]) -> tuple[float, float]:
    """COCO's box and mask AP in percent, the mean over IoU thresholds 0.50 to 0.95."""
    results = []
    for index, scene in enumerate(scenes):
        [outcome] = detector.detect([scene.image])
        assert isinstance(outcome.found, Detections)
        results += _results(outcome.found, index)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _truth(scenes)
        found = truth.loadRes(results)
        box_ap, mask_ap = (_evaluate(truth, found, task) for task in TASKS)
    return box_ap, mask_ap


def _evaluate(truth: COCO, found: COCO, task: str) -> float:
    evaluation = COCOeval(truth, found, task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]) * 100


def _truth(scenes: Sequence[Scene]) -> COCO:
    annotations = [
        {
            "image_id": index,
            "category_id": item.class_index,
            "bbox": _xywh(item.box),
            "segmentation": _rle(item.mask),
            "area": int(np.asarray(item.mask).sum()),
            "iscrowd": 0,
        }
        for index, scene in enumerate(scenes)
        for item in scene.instances
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": index, "height": scene.image.shape[0], "width": scene.image.shape[1]}
            for index, scene in enumerate(scenes)
        ],
        "annotations": [{"id": id_, **item} for id_, item in enumerate(annotations, start=1)],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(CLASS_NAMES)],
    }
    truth.createIndex()
    return truth


def _results(found: Detections, image_id: int) -> list[dict[str, Any]]:
    assert found.masks is not None
    return [
        {
            "image_id": image_id,
            "category_id": int(category),
            "score": float(score),
            "bbox": _xywh(box),
            "segmentation": _rle(paste_mask(mask, box, found.size_hw).full(found.size_hw)),
        }
        for box, score, category, mask in zip(
            found.boxes_xyxy, found.scores, found.classes, found.masks, strict=True
        )
    ]


def _xywh(box_xyxy: Any) -> list[float]:
    x1, y1, x2, y2 = (float(side) for side in box_xyxy)
    return [x1, y1, x2 - x1, y2 - y1]


def _rle(mask: Any) -> Any:
    return coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
