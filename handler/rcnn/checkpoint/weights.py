"""Names and tensors, as checkpoints and networks share them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handler.rcnn.checkpoint.errors import CheckpointError

Weights = dict[str, Tensor]

# What distributed training, torch.compile, Lightning and model averaging put around a network.
WRAPPERS = ("module", "model", "_orig_mod", "net", "detector")
# How many steps torch.optim.swa_utils.AveragedModel averaged.
AVERAGED_STEPS = "n_averaged"


def to_weights(state: Mapping[Any, Any]) -> Weights:
    """Name -> tensor on the CPU, of the stored dtype, under the network's own names.

    Raises:
        CheckpointError: an entry is not an array of numbers.
    """
    weights = {key: _tensor(key, value) for key, value in state.items() if key != AVERAGED_STEPS}
    while _is_wrapped(weights):
        weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
    return weights


def _is_wrapped(weights: Weights) -> bool:
    wrappers = {name.partition(".")[0] if "." in name else "" for name in weights}
    return len(wrappers) == 1 and wrappers.pop() in WRAPPERS


def _tensor(key: Any, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(key, str) or not isinstance(value, Tensor):
        raise CheckpointError(f"entry {key!r} is a {type(value).__name__}, not an array of numbers")
    return value
