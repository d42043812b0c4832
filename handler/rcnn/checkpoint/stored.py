"""A network's weights inside an archive."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from handler.rcnn.checkpoint.errors import CheckpointError
from handler.rcnn.checkpoint.weights import Weights


def write_weights(path: Path, model: nn.Module) -> None:
    """Stores a network's weights in a torch file, in the layout that they have in memory."""
    with path.open("wb") as file:
        torch.save(model.state_dict(), file)


def read_weights(path: Path, *, mapped: bool = False) -> Weights:
    """Reads what `write_weights` wrote, without running code from it.

    Args:
        path: the file.
        mapped: leave the weights in the file and map it into memory, where they are read when they
            are used, and processes share them.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than tensors.
    """
    try:
        weights = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except Exception as error:  # damaged bytes make torch raise almost anything
        raise _unreadable(path, error) from error
    if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f"weights {path.name} are not tensors alone")
    return weights


def read_npz(path: Path) -> Weights:
    """Reads the weights of an archive of before there were torch files.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"weights {path.name} cannot be read: {type(error).__name__}")
