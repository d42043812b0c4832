"""Check that weights are finite, before a network is built that detects nothing for ever."""

from collections.abc import Mapping

import torch
from torch import Tensor

from d2serve.building.checkpoint_loading import is_derived
from d2serve.building.opaque import shortened
from d2serve.errors import CheckpointError

MAX_NAMES = 20


def check_values(weights: Mapping[str, Tensor]) -> None:
    """Check the values that inference uses, as float32.

    Raises:
        CheckpointError: a tensor contains NaN or infinity, also as float32, or a variance is
            negative; the first line counts the tensors, the following ones name them.
    """
    used = {name: tensor for name, tensor in weights.items() if not is_derived(name)}
    problems = [
        f"{shortened(name)}: {problem}"
        for name, tensor in used.items()
        if (problem := _problem(name, tensor))
    ]
    if not problems:
        return
    more = [f"... and {len(problems) - MAX_NAMES} more"] if len(problems) > MAX_NAMES else []
    summary = (
        f"the checkpoint has unusable values in {len(problems)} of {len(used)} tensors, with which "
        "the network would detect nothing; training diverged, so use an earlier checkpoint"
    )
    raise CheckpointError("\n  ".join([summary, *problems[:MAX_NAMES], *more]))


def _problem(name: str, tensor: Tensor) -> str:
    if not tensor.is_floating_point():
        return ""
    values = tensor.float()
    counts = {}
    # A sum in float64 is finite if all values are, and needs no temporary tensor.
    if not values.sum(dtype=torch.float64).isfinite():
        counts = {"NaN": values.isnan(), "infinity": values.isinf()}
    if name.endswith(".running_var"):
        counts["negative variance"] = values < 0
    found = [f"{kind} in {count}" for kind, where in counts.items() if (count := int(where.sum()))]
    return f"{' and '.join(found)} of {values.numel()} values" if found else ""
