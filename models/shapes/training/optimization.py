"""Optimizer steps over one or several processes, and loading of weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from models.shapes.training.plan import TrainingPlan, Weights, process_count


def make_optimizer(model: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    losses: Mapping[str, Tensor],
    parameters: Sequence[nn.Parameter],
    rate: float,
) -> dict[str, float]:
    """Make an optimizer step for the sum of the losses; return the losses by name.

    Gradients are averaged over the processes.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    if process_count() > 1:
        _average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, max_norm=5.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def _average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients by their mean over the processes that train together."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= process_count()
    parts = torch.split(joined, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def loss_summary(recent: Sequence[Mapping[str, float]]) -> str:
    """Format the mean of each loss over the recent steps for the log."""
    means = {name: sum(losses[name] for losses in recent) / len(recent) for name in recent[0]}
    return ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())


def load_either_norm(model: nn.Module, weights: Weights) -> None:
    """Load weights of either normalization into a model of either normalization."""
    missing, unexpected = model.load_state_dict(frozen_weights(weights), strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(
            f"weights do not match the model: missing {missing}, unexpected {unexpected}"
        )


def frozen_weights(weights: Mapping[str, Tensor]) -> Weights:
    """Drop the statistics that only batch normalization stores."""
    return {
        name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")
    }


def group_sizes(state: Mapping[str, Any]) -> list[int]:
    """The number of parameters in each group of an optimizer."""
    return [len(group["params"]) for group in state["param_groups"]]
