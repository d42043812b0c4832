"""Checkpoint files in the formats of other programs."""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1.0, -1.0], dtype=np.float32)

Array = np.ndarray[Any, Any]


class Exploit:
    """Leaves a file behind when a plain unpickler reads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def arrays(prefix: str = "") -> dict[str, Array]:
    """The weights of a linear layer of 3 inputs and 2 outputs."""
    return {f"{prefix}weight": WEIGHT, f"{prefix}bias": BIAS}


def tensors(prefix: str = "", plus: float = 0.0) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(
        (name, torch.from_numpy(array) + plus) for name, array in arrays(prefix).items()
    )


def save(path: Path, content: object) -> Path:
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


def assert_same(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0)
