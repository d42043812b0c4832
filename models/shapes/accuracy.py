"""Box and mask AP of the bundled model, as d2serve runs it, on the images of MODEL_CARD.md's
figures."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config
from d2serve.detections import Detections, RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.masks.paste import paste_mask
from d2serve.model.config import RCNNConfig
from d2serve.model.int8 import calibrate
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.preprocessing import resize_image
from d2serve.settings import Settings
from models.shapes.training.outlines import CLASS_NAMES
from models.shapes.training.scenes import Scene, generate_scene

FOLDER, CPU = Path(__file__).parent, torch.device("cpu")
# As in models.shapes.training.evaluation.
FIRST_HELDOUT_SEED = 500_000
# Of the images that 8-bit integers are calibrated on, neither trained nor held out.
FIRST_CALIBRATION_SEED = 2_000_000
CALIBRATION_IMAGES = 24
SCORE_THRESHOLD = 0.05


def heldout_scenes(images: int) -> list[Scene]:
    """The first held-out images with their instances."""
    return [generate_scene(FIRST_HELDOUT_SEED + index) for index in range(images)]


def detector_in(precision: str) -> NativeDetector:
    """The bundled model with a score threshold that is usual for AP."""
    config = load_config(FOLDER / "config.yaml")
    family = config.family
    assert isinstance(family, RCNNConfig)
    selection = replace(family.roi_heads.selection, score_threshold=SCORE_THRESHOLD)
    family = replace(family, roi_heads=replace(family.roi_heads, selection=selection))
    weights = read_checkpoint(FOLDER / "model_final.pth")
    model = optimize(build_from_checkpoint(replace(config, family=family), weights, CPU))
    found = None
    if precision == "int8":
        seeds = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + CALIBRATION_IMAGES)
        runs = [partial(_run, model, generate_scene(seed).image) for seed in seeds]
        found = calibrate(model.eval(), runs)
    return NativeDetector(model, CPU, Settings(precision=precision), found)


def _run(model: Network, image: RGBImage) -> None:
    model([resize_image(image, model.config.input)], [(image.shape[0], image.shape[1])])


def average_precision(detector: NativeDetector, scenes: Sequence[Scene]) -> tuple[float, float]:
    """COCO's box and mask AP in percent, the mean over IoU thresholds 0.50 to 0.95."""
    truth, annotations = COCO(), list[dict[str, Any]]()
    results: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        for item in scene.instances:
            entry = _annotation(index, item.class_index, item.box, item.mask)
            facts = {"id": len(annotations) + 1, "area": int(np.sum(item.mask)), "iscrowd": 0}
            annotations.append({**entry, **facts})
        [outcome] = detector.detect([scene.image])
        found = outcome.output
        assert isinstance(found, Detections)
        assert found.masks is not None
        arrays = (found.boxes_xyxy, found.scores, found.classes, found.masks)
        for box, score, kind, small in zip(*arrays, strict=True):
            mask = paste_mask(small, box, found.size_hw).full(found.size_hw)
            results.append({**_annotation(index, kind, box, mask), "score": float(score)})
    sizes = [scene.image.shape for scene in scenes]
    images = [
        {"id": index, "height": size[0], "width": size[1]} for index, size in enumerate(sizes)
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES)]
    known = {"info": {}, "images": images, "categories": categories}
    truth.dataset = {**known, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(results)
        box_ap, mask_ap = (_evaluate(truth, loaded, task) for task in ("bbox", "segm"))
    return box_ap, mask_ap


def _evaluate(truth: COCO, found: COCO, task: str) -> float:
    evaluation = COCOeval(truth, found, task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]) * 100


def _annotation(image_id: int, category: int, box_xyxy: Any, mask: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(side) for side in box_xyxy)
    rle = encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": rle}
    return {"image_id": image_id, "category_id": int(category), **box}
