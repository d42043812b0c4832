"""Read checkpoints of Detectron2 and Detectron1 without running code from them."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.building.caffe2 import convert_caffe2, has_caffe2_names
from d2serve.building.checkpoint_files import read_content
from d2serve.building.opaque import describe, shortened
from d2serve.errors import CheckpointError
from d2serve.model.weights import Weights

# Keys of plain weights: Detectron2's trainer, hand-written loops, Lightning, Detectron1.
PLAIN_KEYS = ("model", "model_state_dict", "model_state", "state_dict", "blobs")
# Keys that averaging code puts between its own key and the weights.
INNER_KEYS = (*PLAIN_KEYS, "module", "state", "shadow")
MAX_DEPTH = 3
# Prefixes of two models in one state dict: the teacher, a running average of the student, is first.
TEACHERS = (("modelTeacher", "modelStudent"), ("teacher", "student"))
# Prefixes that distributed training, torch.compile, Lightning and averaging add to all names.
WRAPPERS = (
    "module",
    "model",
    "_orig_mod",
    "net",
    "detector",
    *(prefix for pair in TEACHERS for prefix in pair),
)
# The number of steps that torch.optim.swa_utils.AveragedModel averaged.
AVERAGED_STEPS = "n_averaged"


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file.

    Attributes:
        weights: name -> tensor on the CPU, of the stored dtype; without training state.
        key: the file's key of these weights, or the prefix of their names if the file has those of
            a teacher and a student; "" if the file is a bare state dict.
        plain_key: if `weights` are a running average, the key of the plain weights, if the file has
            them too.
    """

    weights: Weights
    key: str
    plain_key: str | None = None


def read_checkpoint(path: Path) -> Weights:
    """Read the weights of a checkpoint file; see `open_checkpoint`."""
    return open_checkpoint(path).weights


def open_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read a `.pth`, `.pt`, `.ckpt` (torch), `.pkl` (numpy) or `.safetensors` file.

    Args:
        path: the file.
        key: the key of the weights, or the prefix of their names if they are those of a teacher
            or a student. By default a running average, such as the teacher, precedes plain weights,
            because it is what is usually evaluated.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, could run code, or has no
            weights (under the key).
    """
    try:
        return _select(read_content(path), key)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error


def to_weights(state: Mapping[Any, Any]) -> Weights:
    """Convert a state dict to tensors on the CPU, of the stored dtype, without wrapper prefixes.

    Raises:
        CheckpointError: an entry is not an array of numbers.
    """
    weights = {key: _tensor(key, value) for key, value in state.items() if key != AVERAGED_STEPS}
    while _is_wrapped(weights):
        weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
    return weights


def _select(content: Any, key: str | None) -> Checkpoint:
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"it contains a {describe(content)} of length {_length(content)}, expected "
            '{"model": weights} or a dict of weights; save it with '
            'torch.save({"model": model.state_dict()}, path)'
        )
    states = _split_teachers(_states(content) or {"": content})
    if key is not None and key not in states:
        keys = ", ".join(filter(None, states)) or "none, it is a bare dict of weights"
        raise CheckpointError(f"no weights under the key {key!r}; the keys with weights: {keys}")
    averaged = next(filter(_is_averaged, states), None)
    plain = next((name for name in states if not _is_averaged(name)), None)
    chosen = key or averaged or plain or ""
    weights = _convert(states[chosen])
    if _is_averaged(chosen) and plain is not None:
        # Some code averages only parameters: the statistics of norms are in the plain weights.
        return Checkpoint({**_convert(states[plain]), **weights}, chosen, plain)
    return Checkpoint(weights, chosen)


def _length(content: Any) -> int:
    return len(content) if hasattr(content, "__len__") else 0


def _states(content: Mapping[Any, Any]) -> dict[str, Mapping[Any, Any]]:
    """The state dicts under the keys that may contain weights, plain ones in order of the keys."""
    keys = [*PLAIN_KEYS, *filter(_is_averaged, content)]
    states = {
        key: _innermost(content[key]) for key in keys if isinstance(content.get(key), Mapping)
    }
    return {key: state for key, state in states.items() if state}


def _split_teachers(states: Mapping[str, Mapping[Any, Any]]) -> dict[str, Mapping[Any, Any]]:
    """Replace a state dict of a teacher and a student by one of each."""
    split: dict[str, Mapping[Any, Any]] = {}
    for key, state in states.items():
        prefixes = {_first_part(name) for name in state}
        pair = next((pair for pair in TEACHERS if prefixes == {*pair}), None)
        split |= (
            {prefix: _without_prefix(state, prefix) for prefix in pair} if pair else {key: state}
        )
    return split


def _first_part(name: Any) -> str:
    return name.partition(".")[0] if isinstance(name, str) else ""


def _without_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): value for name, value in state.items() if name.startswith(start)
    }


def _is_averaged(key: Any) -> bool:
    """Return whether a key is model_ema, ema, ema_state, state_dict_ema, ..., or a teacher."""
    if not isinstance(key, str):
        return False
    return "ema" in key.lower().split("_") or any(key == teacher for teacher, _ in TEACHERS)


def _innermost(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for _ in range(MAX_DEPTH):
        inner = (state[key] for key in INNER_KEYS if isinstance(state.get(key), Mapping))
        state = next(inner, state)
    return state


def _convert(state: Mapping[Any, Any]) -> Weights:
    weights = to_weights(state)
    return convert_caffe2(weights) if has_caffe2_names(weights) else weights


def _is_wrapped(weights: Weights) -> bool:
    prefixes = {name.partition(".")[0] if "." in name else "" for name in weights}
    return len(prefixes) == 1 and prefixes.pop() in WRAPPERS


def _tensor(key: Any, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(np.asarray(value, order="C"))
    if not isinstance(key, str) or not isinstance(value, Tensor):
        raise CheckpointError(
            f"entry {shortened(reprlib.repr(key))} is a {describe(value)}, expected an array of "
            'numbers; save the weights only: torch.save({"model": model.state_dict()}, path)'
        )
    return value
