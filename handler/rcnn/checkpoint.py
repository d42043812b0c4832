"""Reads Detectron2's checkpoints without running any code that they may hold."""

import importlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]

# In some checkpoints, and of no use here: the config and the anchor sizes say the same, or only
# training reads it.
DERIVED_SUFFIXES = (".num_batches_tracked", ".fed_loss_cls_weights")
DERIVED_NAMES = ("pixel_mean", "pixel_std")
DERIVED_PARTS = (".anchor_generator.cell_anchors.",)

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

NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read safely or does not fit the network."""


class NumpyUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """The named global, if it is one of NUMPY_GLOBALS."""
        if (module, name) in NUMPY_GLOBALS:
            return super().find_class(module, name)
        raise CheckpointError(
            f"the pickle asks for {module}.{name}; only numpy arrays and plain containers are read"
        )


def read_checkpoint(path: Path) -> Weights:
    """Reads the weights of a `.pth` or `.pt` (torch) or a `.pkl` (the model zoo's numpy) file.

    Returns:
        Name -> tensor on the CPU, of the stored dtype; the optimizer's state and the like are left.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or could run code.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; give a .pth or .pkl file")
    readers = {".pkl": _read_pickle, ".pth": _read_torch, ".pt": _read_torch}
    if path.suffix not in readers:
        raise CheckpointError(f"checkpoint {path.name}: expected one of {', '.join(readers)}")
    try:
        content = readers[path.suffix](path)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path.name}: {error}") from error
    return _tensors(_state_dict(content, path.name), path.name)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies weights into the network, strictly, as float32.

    Raises:
        CheckpointError: listing every missing, unexpected and misshaped name.
    """
    needed = model.state_dict()
    given = {name: tensor for name, tensor in weights.items() if not is_derived(name)}
    problems = [
        *(f"missing: {name} {_shape(needed[name])}" for name in needed if name not in given),
        *(f"unexpected: {name} {_shape(given[name])}" for name in given if name not in needed),
        *(
            f"shape of {name}: {_shape(given[name])}, the config needs {_shape(needed[name])}"
            for name in needed
            if name in given and given[name].shape != needed[name].shape
        ),
    ]
    if problems:
        raise CheckpointError(
            "the checkpoint does not fit the config (was it trained with another one?):\n  "
            + "\n  ".join(problems)
        )
    model.load_state_dict(given)


def write_weights(path: Path, model: nn.Module) -> None:
    """Stores a network's weights as an `.npz`, which loads without a pickle."""
    arrays = {name: tensor.numpy(force=True) for name, tensor in model.state_dict().items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read_weights(path: Path) -> Weights:
    """Reads what `write_weights` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise CheckpointError(f"weights {path.name} cannot be read: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it holds more than tensors and plain containers, which could run code when loaded; "
            'save it again with torch.save({"model": model.state_dict()}, path)'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"it is damaged or not a torch file ({type(error).__name__})"
        ) from error


def _numpy_scalars() -> list[Any]:
    """Detectron2's training state may hold numpy numbers (best metrics, for one)."""
    core = importlib.import_module("numpy._core.multiarray" if NUMPY_2 else "numpy.core.multiarray")
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [core.scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # Detectron2's converters wrote them under Python 2 and 3 alike.
            return NumpyUnpickler(file, encoding="latin1").load()
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes make pickle raise almost anything
        raise CheckpointError(f"it is damaged or not a pickle ({type(error).__name__})") from error


def _state_dict(content: Any, name: str) -> Mapping[str, Any]:
    if isinstance(content, Mapping) and content.get("matching_heuristics"):
        raise CheckpointError(
            f"checkpoint {name} has another framework's layer names (matching_heuristics); "
            "load it once with Detectron2 and save model_final.pth from there"
        )
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f'checkpoint {name} is neither {{"model": weights}} nor a dict of weights'
        )
    return content


def _tensors(state: Mapping[str, Any], name: str) -> Weights:
    weights: Weights = OrderedDict()
    for key, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"checkpoint {name}: entry {key!r} is a {type(value).__name__}, "
                "not an array of numbers"
            )
        weights[key] = value
    return weights


def is_derived(name: str) -> bool:
    """Whether a name is among those that the config says as well, or that only training reads."""
    return (
        name in DERIVED_NAMES
        or name.endswith(DERIVED_SUFFIXES)
        or any(part in name for part in DERIVED_PARTS)
    )


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
