"""Weights of a network: written to an archive, read back and loaded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from d2serve.errors import CheckpointError

WEIGHTS_FILE = "weights.pt"
Weights = dict[str, Tensor]


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a network's weights to a torch file, in the memory layout of the network."""
    with path.open("wb") as file:
        torch.save(model.state_dict(), file)


def read_weights(path: Path, *, mapped: bool = False) -> Weights:
    """Read the file that `write_weights` wrote, without running code from it.

    Args:
        path: the file.
        mapped: map the file into memory instead of reading it: pages are loaded on first use and
            shared by all processes.

    Raises:
        CheckpointError: the file is missing, damaged, or contains anything but tensors.
    """
    try:
        weights = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except Exception as error:  # torch raises almost any type for damaged bytes
        raise CheckpointError(
            f"weights {path.name} cannot be read: {type(error).__name__}; build the archive again"
        ) from error
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"weights {path.name}: entry {name!r} is a {type(tensor).__name__}, expected a "
                "tensor; build the archive again"
            )
    return weights


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make the tensors the network's weights, without copying them.

    Raises:
        CheckpointError: a name is missing or unexpected, or a tensor has another shape or dtype
            than in the network.
    """
    expected = model.state_dict()
    problems = [
        *(f"{name} is missing" for name in expected if name not in weights),
        *(f"{name} is not in the network" for name in weights if name not in expected),
        *(
            f"{name} is {_describe(weights[name])}, expected {_describe(parameter)}"
            for name, parameter in expected.items()
            if name in weights and _describe(weights[name]) != _describe(parameter)
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(
            f"the weights do not match the network: {problems[0]}{more}; build the archive again"
        )
    model.load_state_dict(dict(weights), assign=True)


def _describe(tensor: Tensor) -> str:
    """Dtype and shape, such as float32[64, 3, 7, 7]."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{[*tensor.shape]}"
