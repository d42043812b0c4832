"""Training of the shapes model from scratch with Detectron2.

The backbone is pretrained on pixel classification. Then the whole detector is trained in two parts,
because frozen normalization cannot be trained from scratch: first with batch normalization, then
with the same weights and statistics and the `FrozenBN` of the served config.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from models.shapes.training.batches import SceneBatches, SmallSceneBatches, load_batches
from models.shapes.training.config import demo_config
from models.shapes.training.optimization import (
    frozen_weights,
    group_sizes,
    load_either_norm,
    loss_summary,
    make_optimizer,
    optimizer_step,
)
from models.shapes.training.plan import (
    LOG_PERIOD,
    Sample,
    Stage,
    TrainedModel,
    TrainingPlan,
    Weights,
    first_training_seed,
    process_count,
    process_index,
    stage_record,
)
from models.shapes.training.pretraining import pretrain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Phase:
    """A range of steps (from 0) with one normalization and one range of image sizes."""

    norm: str
    steps: range
    small: bool

    @property
    def name(self) -> str:
        """Name of the phase in the log and in metrics.json."""
        norm = "batch normalization" if self.norm == "BN" else "frozen normalization"
        return f"detector, {norm}, {'small' if self.small else 'full-size'} images"


def train(plan: TrainingPlan, checkpoint: Path, weights: Weights | None = None) -> TrainedModel:
    """Train the model and return it with frozen normalization.

    Args:
        plan: How long and how to train.
        checkpoint: File for the intermediate state; if it exists, training resumes.
        weights: Weights to start from instead of random ones, without a checkpoint.
    """
    torch.manual_seed(plan.seed)
    state = _saved_state(checkpoint)
    if state is None:
        state = pretrain(plan, weights)
        _save_state(state, checkpoint)
    first = int(state["iteration"])
    for phase in _phases(plan, first):
        state = _run_phase(phase, state, plan, checkpoint)
    return TrainedModel(frozen_model(state["model"]), state["stages"])


def _phases(plan: TrainingPlan, first: int) -> list[_Phase]:
    """Return the remaining phases from a step on."""
    full, frozen = plan.full_from, plan.frozen_from
    phases = [
        _Phase("BN", range(first, full), small=True),
        _Phase("BN", range(max(first, full), frozen), small=False),
        _Phase("FrozenBN", range(max(first, frozen), plan.iterations), small=False),
    ]
    return [phase for phase in phases if len(phase.steps) > 0]


def _phase_batches(plan: TrainingPlan, phase: _Phase) -> Iterator[list[Sample]]:
    """Return the batches of a phase; phases have no images in common."""
    offset = phase.steps.start * plan.batch_size * process_count() * 2
    first_seed = first_training_seed(plan, offset)
    if phase.small:
        return load_batches(SmallSceneBatches(plan.batch_size, first_seed), plan.workers)
    return load_batches(SceneBatches(plan.batch_size, first_seed), plan.workers)


def frozen_model(weights: Mapping[str, Tensor]) -> nn.Module:
    """Build the served model with the weights of either phase, ready for inference."""
    model: nn.Module = build_model(demo_config())
    model.load_state_dict(frozen_weights(weights), strict=True)
    return model.eval()


def _run_phase(
    phase: _Phase,
    state: dict[str, Any],
    plan: TrainingPlan,
    checkpoint: Path,
) -> dict[str, Any]:
    """Make the steps of a phase from a state; return the new state."""
    model = build_model(demo_config(phase.norm)).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, plan)
    _restore(model, optimizer, state)
    before: list[Stage] = list(state["stages"])
    batches = _phase_batches(plan, phase)
    started = time.perf_counter()
    recent: deque[dict[str, float]] = deque(maxlen=LOG_PERIOD)
    new_state: dict[str, Any] = {}
    with EventStorage(phase.steps.start):
        for step in phase.steps:
            recent.append(_step(model, optimizer, next(batches), plan.rate_at(step)))
            seconds = time.perf_counter() - started
            if (step + 1) % LOG_PERIOD == 0:
                seconds_per_step = seconds / (step + 1 - phase.steps.start)
                logger.info(
                    "step %d, %.2f s/step, %s", step + 1, seconds_per_step, loss_summary(recent)
                )
            if (step + 1) % plan.checkpoint_period == 0 or step + 1 == phase.steps.stop:
                stage = stage_record(phase.name, step + 1 - phase.steps.start, plan, seconds)
                new_state = _state(model, optimizer, step + 1, [*before, stage])
                _save_state(new_state, checkpoint)
    return new_state


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Sample], rate: float
) -> dict[str, float]:
    """Make one optimizer step at a learning rate; return the losses by name."""
    return optimizer_step(optimizer, model(batch), list(model.parameters()), rate)


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer, iteration: int, stages: list[Stage]
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": iteration,
        "stages": stages,
    }


def _save_state(state: Mapping[str, Any], path: Path) -> None:
    if process_index() > 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(path)


def _saved_state(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    logger.info("resuming from step %d of %s", state["iteration"], path.name)
    return state


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state; the optimizer's only if it is of the same phase."""
    load_either_norm(model, state["model"])
    saved = state.get("optimizer")
    if saved is not None and group_sizes(saved) == group_sizes(optimizer.state_dict()):
        optimizer.load_state_dict(saved)


def save_weights(model: nn.Module, folder: Path, name: str = "model_final") -> Path:
    """Write `{"model": weights}` as Detectron2 does and return the file's path."""
    DetectionCheckpointer(model, save_dir=str(folder)).save(name)
    for extra in folder.glob("last_checkpoint"):
        extra.unlink()
    return folder / f"{name}.pth"


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters, those of the frozen normalization included."""
    weights = model.state_dict()
    return sum(value.numel() for name, value in weights.items() if ".running_" not in name)
