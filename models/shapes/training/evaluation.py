"""Box and mask AP on held-out images with Detectron2's COCOEvaluator."""

import contextlib
import copy
import functools
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask
from torch import nn

from models.shapes.training.batches import resized
from models.shapes.training.config import demo_config
from models.shapes.training.outlines import CLASS_NAMES, ByteArray
from models.shapes.training.plan import Sample
from models.shapes.training.scenes import generate_scene

FIRST_HELDOUT_SEED = 500_000
HELDOUT_NAME = "shapes_heldout"
EVALUATION_SCORE_THRESHOLD = 0.05


def evaluate(weights: Path, images: int, score_thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """Measure box and mask AP on held-out images.

    Args:
        weights: Checkpoint that `save_weights` wrote.
        images: Number of held-out images, 0 < images <= 500000.
        score_thresholds: Score thresholds, 0..1; an evaluation for each of them.

    Returns:
        Detectron2's results for each threshold: ``{"bbox": {"AP": ..., "AP50": ..., ...},
        "segm": {...}}` with figures in percent, where `AP-<class>`` is the AP of one class.
    """
    model = _inference_model(weights, min(score_thresholds))
    _register_heldout(images)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        evaluators = [COCOEvaluator(HELDOUT_NAME, ("bbox", "segm"), False, folder)]
        evaluators += [copy.copy(evaluators[0]) for _ in score_thresholds[1:]]
        for evaluator in evaluators:
            evaluator.reset()
        for seed in _heldout_seeds(images):
            sample = inference_sample(generate_scene(seed).image, seed)
            with torch.inference_mode():
                instances = model([sample])[0]["instances"]
            for evaluator, threshold in zip(evaluators, score_thresholds, strict=True):
                evaluator.process(
                    [sample], [{"instances": instances[instances.scores > threshold]}]
                )
        return [dict(evaluator.evaluate()) for evaluator in evaluators]


def _inference_model(weights: Path, score_threshold: float) -> nn.Module:
    cfg = demo_config()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
    model: nn.Module = build_model(cfg).eval()
    DetectionCheckpointer(model).load(str(weights))
    return model


def inference_sample(image: ByteArray, image_id: int) -> Sample:
    """Convert an RGB `uint8` image `(height, width, 3)` into a Detectron2 test input."""
    cfg = demo_config()
    tensor, _ = resized(image, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    height, width = image.shape[:2]
    return {"image": tensor, "height": height, "width": width, "image_id": image_id}


def heldout_instances(images: int) -> int:
    """Return the number of shapes in the held-out images."""
    return sum(len(record["annotations"]) for record in _heldout_records(images))


@functools.lru_cache(maxsize=1)
def _heldout_records(images: int) -> list[Sample]:
    return [_ground_truth(seed) for seed in _heldout_seeds(images)]


def _heldout_seeds(images: int) -> range:
    return range(FIRST_HELDOUT_SEED, FIRST_HELDOUT_SEED + images)


def _register_heldout(images: int) -> None:
    """Register the held-out images with Detectron2's catalogs, replacing earlier ones."""
    if HELDOUT_NAME in DatasetCatalog.list():
        DatasetCatalog.remove(HELDOUT_NAME)
        MetadataCatalog.remove(HELDOUT_NAME)
    DatasetCatalog.register(HELDOUT_NAME, functools.partial(_heldout_records, images))
    MetadataCatalog.get(HELDOUT_NAME).set(thing_classes=list(CLASS_NAMES))


def _ground_truth(seed: int) -> Sample:
    scene = generate_scene(seed)
    height, width = scene.image.shape[:2]
    return {
        "file_name": f"{seed}.png",
        "image_id": seed,
        "height": height,
        "width": width,
        "annotations": [
            {
                "bbox": list(item.box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": item.class_index,
                "segmentation": coco_mask.encode(np.asfortranarray(item.mask.astype(np.uint8))),
            }
            for item in scene.instances
        ],
    }
