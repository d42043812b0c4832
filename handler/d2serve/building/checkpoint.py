"""Read checkpoints of Detectron2 and Detectron1 without running code from them."""

import importlib
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.building.caffe2 import convert_caffe2, has_caffe2_names
from d2serve.errors import CheckpointError
from d2serve.model.weights import Weights

# All that a pickle of numpy arrays in plain containers needs, under numpy 1's and 2's names.
NUMPY_GLOBALS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


class NumpyUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """The named global, if it is one of NUMPY_GLOBALS."""
        if (module, name) in NUMPY_GLOBALS:
            return super().find_class(module, name)
        raise CheckpointError(
            f"the pickle asks for {module}.{name}, which could run code; "
            "only numpy arrays and plain containers are read"
        )


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


NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"
# How torch.load names what it refuses to import.
REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_content(path: Path) -> Any:
    """Reads a torch file, a numpy pickle or safetensors, without running code from it.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or could run code.
    """
    if not path.is_file():
        raise CheckpointError(f"it does not exist; give one of {', '.join(READERS)}")
    if path.suffix not in READERS:
        raise CheckpointError(f"expected one of {', '.join(READERS)}")
    return READERS[path.suffix](path)


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise almost anything
        refused = REFUSED_GLOBAL.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"it asks for {refused[1]}, which could run code; save tensors alone: "
                'torch.save({"model": model.state_dict()}, path)'
            ) from error
        raise _damaged("torch file", error) from error


def _numpy_scalars() -> list[Any]:
    """Detectron2's training state may hold numpy numbers (best metrics, for one)."""
    core = importlib.import_module("numpy._core.multiarray" if NUMPY_2 else "numpy.core.multiarray")
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [core.scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # Detectron's converters wrote them under Python 2 and 3 alike.
            return NumpyUnpickler(file, encoding="latin1").load()
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes make pickle raise almost anything
        raise _damaged("pickle", error) from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            "the safetensors package is not installed; run: "
            ".venv/bin/python -m pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged("safetensors file", error) from error


def _damaged(kind: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"it is cut short, damaged or no {kind} ({type(error).__name__})")


READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".ckpt": _read_torch,
    ".pkl": _read_pickle,
    ".safetensors": _read_safetensors,
}
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
