"""A network's weights: stored in an archive, loaded into a network."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from d2serve.errors import CheckpointError
from d2serve.model.layers import FrozenBatchNorm2d
from d2serve.model.weight_mismatch import describe_misfit

Weights = dict[str, Tensor]


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


# In some checkpoints, and of no use here: the config says the same, or only training reads it.
DERIVED_NAMES = ("pixel_mean", "pixel_std")
DERIVED_PARTS = ("anchor_generator.cell_anchors.",)
DERIVED_SUFFIXES = (".num_batches_tracked", ".fed_loss_cls_weights")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into the network, strictly, as float32; those that are float32 are not copied.

    A name may lack the beginning that it has in the network, as those of converted checkpoints do
    (`detectron2.checkpoint.c2_model_loading.align_and_update_state_dicts`).

    Raises:
        CheckpointError: its first line says what does not fit, the others list the missing,
            unexpected and misshaped names.
    """
    needed = {name: held for name, held in model.state_dict().items() if not is_derived(name)}
    given = {name: tensor for name, tensor in weights.items() if not is_derived(name)}
    given = _aligned(given, needed)
    given = {**_identity_statistics(model, given), **given}
    misfit = describe_misfit(needed, given)
    if misfit:
        raise CheckpointError(misfit)
    fitting = {name: tensor.to(needed[name].dtype) for name, tensor in given.items()}
    model.load_state_dict(fitting, strict=False, assign=True)


def _aligned(given: Weights, needed: Weights) -> Weights:
    """Under the network's names those weights that have one place in it, the others as they are."""
    loose = {name for name in given if name not in needed}
    places = {name: _source(name, loose) for name in needed if name not in given}
    uses = Counter(places.values())
    unique = {source: name for name, source in places.items() if source and uses[source] == 1}
    return {unique.get(name, name): tensor for name, tensor in given.items()}


def _source(name: str, loose: set[str]) -> str | None:
    """The longest of the loose names with which the network's name ends."""
    return next((ending for ending in _endings(name) if ending in loose), None)


def _endings(name: str) -> Iterator[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _identity_statistics(model: nn.Module, given: Weights) -> Weights:
    """Of norms that have none: Caffe2 folds them into scale and shift (Detectron2's FrozenBN)."""
    statistics: Weights = {}
    for path, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and f"{path}.weight" in given:
            statistics[f"{path}.running_mean"] = torch.zeros_like(module.running_mean)
            statistics[f"{path}.running_var"] = torch.ones_like(module.running_var)
    return statistics


def is_derived(name: str) -> bool:
    """Whether a name is among those that the config says as well, or that only training reads."""
    return (
        name in DERIVED_NAMES
        or name.endswith(DERIVED_SUFFIXES)
        or any(part in name for part in DERIVED_PARTS)
    )
