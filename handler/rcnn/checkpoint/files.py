"""What lies in a checkpoint file, by its kind."""

import importlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handler.rcnn.checkpoint.errors import CheckpointError
from handler.rcnn.checkpoint.unpickling import NumpyUnpickler

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
