"""A network's weights inside an archive."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from d2serve.errors import CheckpointError
from d2serve.model.weights import load_weights, read_npz, read_weights, write_weights
from tests.building.checkpoint.saving import Exploit, tensors


@pytest.mark.parametrize("mapped", [False, True])
def test_stored_weights_come_back_equal_and_laid_out_as_they_were(
    tmp_path: Path, mapped: bool
) -> None:
    model = nn.Conv2d(3, 4, 5)
    model.weight.data = model.weight.data.contiguous(memory_format=torch.channels_last)
    write_weights(tmp_path / "weights.pt", model)
    weights = read_weights(tmp_path / "weights.pt", mapped=mapped)
    assert sorted(weights) == ["bias", "weight"]
    assert torch.equal(weights["weight"], model.weight)
    assert weights["weight"].stride() == model.weight.stride()
    assert torch.equal(weights["bias"], model.state_dict()["bias"])


def test_mapped_weights_lie_in_the_file_even_in_the_network(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    write_weights(tmp_path / "weights.pt", model)
    weights = read_weights(tmp_path / "weights.pt", mapped=True)
    load_weights(model, weights)
    assert model.weight.untyped_storage().data_ptr() == weights["weight"].data_ptr()
    mappings = Path("/proc/self/maps").read_text().splitlines()
    [mapping] = [line for line in mappings if line.endswith(str(tmp_path / "weights.pt"))]
    start, end = (int(address, 16) for address in mapping.split()[0].split("-"))
    assert start <= model.weight.data_ptr() < end


def test_the_same_weights_are_stored_as_the_same_bytes(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    for name in ("a.pt", "b.pt"):
        write_weights(tmp_path / name, model)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_stored_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": Exploit(tmp_path / "trace")}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "trace").exists()


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": "heavy"}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt are not tensors alone"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "damaged"])
@pytest.mark.parametrize("mapped", [False, True])
def test_damaged_stored_weights_are_named(tmp_path: Path, content: bytes, mapped: bool) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt cannot be read"):
        read_weights(tmp_path / "weights.pt", mapped=mapped)


def test_weights_of_older_archives_are_read(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in tensors().items()}
    np.savez(tmp_path / "weights.npz", **arrays)  # type: ignore[arg-type]
    weights = read_npz(tmp_path / "weights.npz")
    assert sorted(weights) == sorted(arrays)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tensors().items())


def test_objects_in_older_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", weight=np.array([Exploit(tmp_path / "trace")]))
    with pytest.raises(CheckpointError, match=r"weights\.npz"):
        read_npz(tmp_path / "weights.npz")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"], ids=["empty", "damaged"])
def test_damaged_weights_of_older_archives_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.npz"):
        read_npz(tmp_path / "weights.npz")
