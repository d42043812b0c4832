"""Hyperparameters of the training, and the processes that share it."""

import math
import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

Sample: TypeAlias = dict[str, Any]
Stage: TypeAlias = dict[str, Any]
Weights: TypeAlias = dict[str, Tensor]
LOG_PERIOD = 20
FIRST_TRAINING_SEED = 1_000_000


@dataclass(frozen=True)
class TrainingPlan:
    """Hyperparameters of the training.

    Attributes:
        pretraining_iterations: Optimizer steps of the backbone alone, at the start.
        iterations: Optimizer steps of the detector.
        small_fraction: Share of the detector's steps, at the start, with small images, which are
            several times faster.
        frozen_fraction: Share of the detector's steps, at the end, with frozen normalization.
        batch_size: Images per step and process.
        pretraining_rate: Peak learning rate of the backbone alone; it falls linearly.
        learning_rate: Peak learning rate of the detector; it rises for `warmup` steps, then
            follows a cosine.
        warmup: Number of warm-up steps.
        weight_decay: Weight decay of AdamW.
        seed: Seed of the initial weights and offset of the training images' seeds.
        workers: Processes that generate images.
        checkpoint_period: Steps between two intermediate checkpoints.
    """

    iterations: int
    pretraining_iterations: int = 900
    small_fraction: float = 0.8
    frozen_fraction: float = 0.1
    batch_size: int = 8
    learning_rate: float = 1e-3
    pretraining_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 1e-2
    seed: int = 0
    workers: int = 1
    checkpoint_period: int = 100

    @property
    def frozen_from(self) -> int:
        """The first step (from 0) with frozen normalization."""
        return self.iterations - round(self.iterations * self.frozen_fraction)

    @property
    def full_from(self) -> int:
        """The first step (from 0) with full-size images."""
        return min(self.frozen_from, round(self.iterations * self.small_fraction))

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * rise * max(0.01, self._cosine(step))

    def pretraining_rate_at(self, step: int) -> float:
        """Return the learning rate of a pretraining step counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        return self.pretraining_rate * rise * max(0.02, 1 - step / self.pretraining_iterations)

    def _cosine(self, step: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * step / max(1, self.iterations)))


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        model: The served model, ready for inference.
        stages: The stages in order, each with `name`, `steps`, `images`, `processes` and
            `seconds`.
    """

    model: nn.Module
    stages: list[Stage]


def process_index() -> int:
    """Return the rank of this process (see `torchrun`)."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_training_seed(plan: TrainingPlan, offset: int) -> int:
    """Return the seed of the first image of a stage."""
    return FIRST_TRAINING_SEED + plan.seed * 1_000_000 + offset


def stage_record(name: str, steps: int, plan: TrainingPlan, seconds: float) -> Stage:
    """Return a stage's entry in `metrics.json`."""
    images = steps * plan.batch_size * process_count()
    return {
        "name": name,
        "steps": steps,
        "images": images,
        "processes": process_count(),
        "seconds": round(seconds, 1),
    }
