"""A network's weights inside an archive."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from handler.rcnn.checkpoint import CheckpointError, load_weights, read_weights, write_weights
from tests.rcnn.checkpoint.saving import Exploit, tensors


def test_stored_weights_come_back_equal_and_without_a_pickle(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    load_weights(model, tensors())
    write_weights(tmp_path / "weights.npz", model)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as stored:
        assert sorted(stored.files) == ["bias", "weight"]
    weights = read_weights(tmp_path / "weights.npz")
    assert torch.equal(weights["weight"], model.weight)
    assert torch.equal(weights["bias"], model.bias)


def test_the_same_weights_are_stored_as_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    for name in ("a.npz", "b.npz"):
        write_weights(tmp_path / name, model)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_stored_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", weight=np.array([Exploit(tmp_path / "trace")]))
    with pytest.raises(CheckpointError, match=r"weights\.npz"):
        read_weights(tmp_path / "weights.npz")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "damaged"])
def test_damaged_stored_weights_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.npz"):
        read_weights(tmp_path / "weights.npz")
