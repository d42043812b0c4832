"""Which of a checkpoint's weights are served."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.rcnn.checkpoint.caffe2 import convert_caffe2, has_caffe2_names
from handler.rcnn.checkpoint.errors import CheckpointError
from handler.rcnn.checkpoint.files import read_content
from handler.rcnn.checkpoint.weights import Weights, to_weights

# Detectron2's trainer, hand-written loops, Lightning, Detectron1.
PLAIN_KEYS = ("model", "model_state_dict", "model_state", "state_dict", "blobs")
# What averaging puts between its own key and the weights.
INNER_KEYS = (*PLAIN_KEYS, "module", "state", "shadow")
DEEPEST = 3


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one file.

    Attributes:
        weights: name -> tensor on the CPU, of the stored dtype; training state is left.
        key: under which of the file's keys they lie; "" where the file is a bare state dict.
        plain_key: where `weights` are a running average, the key of those that were averaged, if
            the file has them too.
    """

    weights: Weights
    key: str
    plain_key: str | None = None


def read_checkpoint(path: Path) -> Weights:
    """The weights of a checkpoint file; see `open_checkpoint`."""
    return open_checkpoint(path).weights


def open_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Reads a `.pth`, `.pt`, `.ckpt` (torch), `.pkl` (numpy) or `.safetensors` file.

    Args:
        path: the file.
        key: which of the file's weights; where None, a running average before the plain ones,
            since it is what people evaluate.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, could run code, or has no
            weights (under that key).
    """
    try:
        return _select(read_content(path), key)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error


def _select(content: Any, key: str | None) -> Checkpoint:
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError('neither {"model": weights} nor a dict of weights')
    states = _states(content) or {"": content}
    if key is not None and key not in states:
        keys = ", ".join(filter(None, states)) or "none, it is a bare dict of weights"
        raise CheckpointError(f"no weights under the key {key!r}; the keys with weights: {keys}")
    averaged = next(filter(_is_averaged, states), None)
    plain = next((name for name in states if not _is_averaged(name)), None)
    chosen = key or averaged or plain or ""
    weights = _converted(states[chosen])
    if _is_averaged(chosen) and plain is not None:
        # Some average the parameters alone: the statistics of the norms are the plain ones.
        return Checkpoint({**_converted(states[plain]), **weights}, chosen, plain)
    return Checkpoint(weights, chosen)


def _states(content: Mapping[Any, Any]) -> dict[str, Mapping[Any, Any]]:
    """The state dicts under the keys that may hold weights, plain ones in the order of the keys."""
    keys = [*PLAIN_KEYS, *filter(_is_averaged, content)]
    states = {
        key: _innermost(content[key]) for key in keys if isinstance(content.get(key), Mapping)
    }
    return {key: state for key, state in states.items() if state}


def _is_averaged(key: Any) -> bool:
    """model_ema, ema, ema_state, state_dict_ema, ..."""
    return isinstance(key, str) and "ema" in key.lower().split("_")


def _innermost(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    for _ in range(DEEPEST):
        inner = (state[key] for key in INNER_KEYS if isinstance(state.get(key), Mapping))
        state = next(inner, state)
    return state


def _converted(state: Mapping[Any, Any]) -> Weights:
    weights = to_weights(state)
    return convert_caffe2(weights) if has_caffe2_names(weights) else weights
