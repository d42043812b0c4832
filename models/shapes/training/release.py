"""Training, evaluation and files of the bundled model."""

import argparse
import hashlib
import logging
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import torch

from models.shapes.training.config import demo_config, served_yaml
from models.shapes.training.evaluation import (
    EVALUATION_SCORE_THRESHOLD,
    FIRST_HELDOUT_SEED,
    evaluate,
    heldout_instances,
)
from models.shapes.training.model_card import model_card
from models.shapes.training.outlines import CLASS_NAMES
from models.shapes.training.plan import TrainedModel, TrainingPlan, process_count, process_index
from models.shapes.training.samples import write_json
from models.shapes.training.scenes import MIN_VISIBLE
from models.shapes.training.training import parameter_count, save_weights, train

logger = logging.getLogger(__name__)


def train_and_describe(options: argparse.Namespace) -> None:
    """Train, evaluate and write the model's files; only process 0 writes."""
    torch.set_num_threads(options.threads)
    if process_count() > 1:
        torch.distributed.init_process_group("gloo")
    plan = _plan(options)
    weights = None
    if options.weights is not None:
        weights = torch.load(options.weights, map_location="cpu", weights_only=True)["model"]
    trained = train(plan, options.checkpoint, weights)
    if process_index() > 0:
        return
    path = save_weights(trained.model, options.out)
    (options.out / "config.yaml").write_text(served_yaml(demo_config()), encoding="utf-8")
    metrics = _measure(trained, plan, path, options)
    write_json(options.out / "metrics.json", metrics)
    card = model_card(metrics, CLASS_NAMES)
    (options.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    logger.info("wrote %s", options.out)


def _plan(options: argparse.Namespace) -> TrainingPlan:
    return TrainingPlan(
        iterations=options.iterations,
        pretraining_iterations=options.pretraining_iterations,
        frozen_fraction=options.frozen_fraction,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        workers=options.workers,
    )


def _measure(
    trained: TrainedModel, plan: TrainingPlan, weights: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Evaluate the written weights; return the content of `metrics.json`."""
    cfg = demo_config()
    served_threshold = float(cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
    thresholds = [EVALUATION_SCORE_THRESHOLD, served_threshold]
    usual, served = _evaluations(weights, options.heldout, thresholds)
    return {
        "model": {
            "file": weights.name,
            "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "parameters": parameter_count(trained.model),
            "min_size_test": cfg.INPUT.MIN_SIZE_TEST,
            "max_size_test": cfg.INPUT.MAX_SIZE_TEST,
        },
        "data": {"classes": list(CLASS_NAMES), "min_visible": MIN_VISIBLE},
        "training": {
            "optimizer": "AdamW",
            "learning_rate": plan.learning_rate,
            "weight_decay": plan.weight_decay,
            "seed": plan.seed,
            "stages": trained.stages,
        },
        "evaluation": usual,
        "evaluation_as_served": served,
        "versions": _versions(),
    }


def _evaluations(weights: Path, images: int, thresholds: list[float]) -> list[dict[str, Any]]:
    logger.info("evaluating on %d images", images)
    return [
        {
            "images": images,
            "instances": heldout_instances(images),
            "first_seed": FIRST_HELDOUT_SEED,
            "score_threshold": threshold,
            "bbox": _rounded(results["bbox"]),
            "segm": _rounded(results["segm"]),
        }
        for threshold, results in zip(
            thresholds, evaluate(weights, images, thresholds), strict=True
        )
    ]


def _rounded(figures: dict[str, float]) -> dict[str, float | None]:
    """Round figures for JSON; NaN (the AP of a size or class without shapes) becomes None."""
    return {
        name: None if math.isnan(value) else round(float(value), 3)
        for name, value in figures.items()
    }


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "detectron2", "pycocotools", "numpy")
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in packages}
    return {**versions, "opencv": cv2.__version__}
