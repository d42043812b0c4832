"""A network's weights inside an archive."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from handler.rcnn.checkpoint.errors import CheckpointError
from handler.rcnn.checkpoint.weights import Weights


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
