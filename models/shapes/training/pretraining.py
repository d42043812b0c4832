"""Pretraining of the backbone on pixel classification, much faster than on boxes."""

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from models.shapes.training.batches import SeededBatches, bgr_tensor, load_batches, worker_seeds
from models.shapes.training.config import demo_config
from models.shapes.training.optimization import load_either_norm, loss_summary, optimizer_step
from models.shapes.training.outlines import CLASS_NAMES
from models.shapes.training.plan import (
    LOG_PERIOD,
    TrainingPlan,
    Weights,
    first_training_seed,
    stage_record,
)
from models.shapes.training.scenes import Scene, generate_scene

logger = logging.getLogger(__name__)
PIXEL_SIDES = (160, 192, 224)
PIXEL_STRIDE = 4
BACKGROUND_WEIGHT = 0.2


class PixelBatches(SeededBatches[tuple[Tensor, Tensor]]):
    """Endless batches of small square scenes with the classes of a grid of pixels, four apart.

    A batch is `(images, labels)`: `float32` of shape `(batch, 3, side, side)`, BGR,
    0..255, and `int64` of shape `(batch, side / 4, side / 4)` with 0 for the background and
    one more than the class index elsewhere.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches."""
        seeds = worker_seeds(self.first_seed)
        for side in itertools.cycle(PIXEL_SIDES):
            drawn = itertools.islice(seeds, self.batch_size)
            scenes = [generate_scene(seed, (side, side), 5) for seed in drawn]
            images = torch.stack([bgr_tensor(scene.image) for scene in scenes])
            yield images, torch.stack([_pixel_labels(scene) for scene in scenes])


def _pixel_labels(scene: Scene) -> Tensor:
    labels = np.zeros(scene.image.shape[:2], np.int64)
    for item in scene.instances:
        labels[item.mask] = item.class_index + 1
    return torch.from_numpy(labels[2::PIXEL_STRIDE, 2::PIXEL_STRIDE].copy())


def pretrain(plan: TrainingPlan, weights: Weights | None = None) -> dict[str, Any]:
    """Train the backbone to classify pixels; return a state for the detector's training."""
    model = build_model(demo_config("BN")).to(memory_format=torch.channels_last).train()
    if weights is not None:
        load_either_norm(model, weights)
    classifier = nn.Conv2d(model.backbone.output_shape()["p2"].channels, len(CLASS_NAMES) + 1, 1)
    parameters = [*model.backbone.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, plan.pretraining_rate, weight_decay=1e-2)
    pixels = PixelBatches(plan.batch_size, first_training_seed(plan, 500_000))
    batches = load_batches(pixels, plan.workers)
    started, recent = time.perf_counter(), deque[dict[str, float]](maxlen=LOG_PERIOD)
    for step in range(plan.pretraining_iterations):
        images, labels = next(batches)
        images = (images - model.pixel_mean) / model.pixel_std
        features = model.backbone(images.contiguous(memory_format=torch.channels_last))
        loss = _pixel_loss(classifier(features["p2"]), labels)
        rate = plan.pretraining_rate_at(step)
        recent.append(optimizer_step(optimizer, {"loss_pixels": loss}, parameters, rate))
        if (step + 1) % LOG_PERIOD == 0:
            logger.info("pretraining step %d, %s", step + 1, loss_summary(recent))
    steps, seconds = plan.pretraining_iterations, time.perf_counter() - started
    stage = stage_record("backbone alone", steps, plan, seconds)
    return {"model": model.state_dict(), "iteration": 0, "stages": [stage] if steps > 0 else []}


def _pixel_loss(scores: Tensor, labels: Tensor) -> Tensor:
    weights = torch.ones(scores.shape[1])
    weights[0] = BACKGROUND_WEIGHT
    return nn.functional.cross_entropy(scores, labels, weight=weights)
