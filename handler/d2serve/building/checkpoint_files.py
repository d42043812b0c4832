"""Read torch files, numpy pickles and safetensors without running code from them."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from d2serve.building import restricted_pickle
from d2serve.building.file_kinds import (
    PICKLE,
    SAFETENSORS,
    TORCH_LEGACY,
    TORCH_ZIP,
    kind_of,
    reject_non_binary,
)
from d2serve.errors import CheckpointError

# Makes torch.load reject every unpickler but its own.
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class DamagedError(CheckpointError):
    """The bytes are not those of the format."""


def read_content(path: Path) -> Any:
    """Read the content of a checkpoint file.

    The content decides, not the name: a torch file may be called .pkl.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or could run code.
    """
    suffixes = ", ".join(READERS)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"it {problem}; use a file that ends in {suffixes}")
    try:
        kind = kind_of(path)
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror}") from error
    if path.suffix not in READERS:
        raise CheckpointError(f"its name ends in {path.suffix!r}, accepted are {suffixes}")
    try:
        return READERS_BY_KIND.get(kind or "", READERS[path.suffix])(path)
    except DamagedError:
        reject_non_binary(path)
        raise


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the sources of pickled modules
            return torch.load(path, map_location="cpu", **_unpickler())
    except CheckpointError:
        raise
    except Exception as error:  # torch raises almost any type for damaged bytes
        raise _damaged("torch file", error) from error


def _unpickler() -> dict[str, Any]:
    """Our unpickler imports nothing, and skips what torch's own rejects."""
    if os.environ.get(FORCED, "").lower() in ("1", "y", "yes", "true"):
        return {"weights_only": True}
    return {"weights_only": False, "pickle_module": restricted_pickle}


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # Detectron's converters ran under Python 2 and 3.
            return restricted_pickle.load(file, encoding="latin1")
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


def _damaged(kind: str, error: Exception) -> DamagedError:
    return DamagedError(
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
READERS_BY_KIND: dict[str, Callable[[Path], Any]] = {
    TORCH_ZIP: _read_torch,
    TORCH_LEGACY: _read_torch,
    PICKLE: _read_pickle,
    SAFETENSORS: _read_safetensors,
}
