"""Read torch files, numpy pickles and safetensors without running code from them."""

import importlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2serve.errors import CheckpointError

# All globals that a pickle of numpy arrays in plain containers needs, for numpy 1 and 2.
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
IS_NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"
# The name in torch.load's error for a global that it does not import.
REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


class NumpyUnpickler(pickle.Unpickler):
    """Unpickler for numpy arrays and plain containers; rejects everything else before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a global of NUMPY_GLOBALS."""
        if (module, name) in NUMPY_GLOBALS:
            return super().find_class(module, name)
        raise CheckpointError(
            f"the pickle imports {module}.{name}, which could run code; accepted are only numpy "
            "arrays and plain containers"
        )


def read_content(path: Path) -> Any:
    """Read the content of a checkpoint file.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or could run code.
    """
    suffixes = ", ".join(READERS)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"it {problem}; use a file that ends in {suffixes}")
    if path.suffix not in READERS:
        raise CheckpointError(f"its name ends in {path.suffix!r}, accepted are {suffixes}")
    return READERS[path.suffix](path)


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost any type for damaged bytes
        refused = REFUSED_GLOBAL.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"it imports {refused[1]}, which could run code; save only tensors: "
                'torch.save({"model": model.state_dict()}, path)'
            ) from error
        raise _damaged("torch file", error) from error


def _numpy_scalars() -> list[Any]:
    """The types of numpy numbers, such as best metrics in Detectron2's training state."""
    core = importlib.import_module(
        "numpy._core.multiarray" if IS_NUMPY_2 else "numpy.core.multiarray"
    )
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    return [core.scalar, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # Detectron's converters ran under Python 2 and 3.
            return NumpyUnpickler(file, encoding="latin1").load()
    except CheckpointError:
        raise
    except Exception as error:  # pickle raises almost any type for damaged bytes
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
    return CheckpointError(
        f"it is truncated, damaged or not a {kind} ({type(error).__name__}); copy it again from "
        "its source"
    )


READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".ckpt": _read_torch,
    ".pkl": _read_pickle,
    ".safetensors": _read_safetensors,
}
