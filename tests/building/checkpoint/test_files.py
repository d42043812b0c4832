"""Read checkpoint files: all kinds, damaged ones, and ones that would run code."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from d2serve.building.checkpoint import read_checkpoint
from d2serve.errors import CheckpointError
from tests.building.checkpoint.saving import (
    WEIGHT,
    Exploit,
    arrays,
    assert_same,
    save,
    tensors,
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("model.pth", {"model": tensors()}, id="Detectron2's pth"),
        pytest.param("model.pt", tensors(), id="bare state dict"),
        pytest.param("model.ckpt", {"state_dict": tensors()}, id="Lightning's ckpt"),
        pytest.param(
            "model.pkl", {"model": arrays(), "__author__": "Detectron2 Model Zoo"}, id="zoo's pkl"
        ),
        pytest.param("model.pkl", arrays(), id="bare pkl"),
        pytest.param(
            "model.pkl",
            {name: array.astype(">f4") for name, array in arrays().items()},
            id="a big-endian pkl",
        ),
    ],
)
def test_reads_every_kind_of_file(tmp_path: Path, name: str, content: object) -> None:
    assert_same(read_checkpoint(save(tmp_path / name, content)), tensors())


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file(dict(tensors()), tmp_path / "model.safetensors")
    assert_same(read_checkpoint(tmp_path / "model.safetensors"), tensors())


def test_missing_safetensors_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(dict(tensors()), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_checkpoint(tmp_path / "model.safetensors")


def test_reads_torch_files_from_before_they_were_zips(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": tensors()}, path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path), tensors())


@pytest.mark.parametrize("value", ["1", "true", "0"])
def test_reads_torch_files_where_torch_is_told_to_use_its_own_unpickler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", value)
    assert_same(read_checkpoint(save(tmp_path / "m.pth", {"model": tensors()})), tensors())
    code = save(tmp_path / "code.pth", {"model": tensors(), "hook": Exploit(tmp_path / "trace")})
    with pytest.raises(CheckpointError, match=r"code\.pth"):
        read_checkpoint(code)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": arrays()}, protocol=protocol))
    assert_same(read_checkpoint(path), tensors())


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    path = save(
        tmp_path / name,
        {"model": tensors() if "pth" in name else arrays()} | {"hook": Exploit(trace)},
    )
    with pytest.raises(CheckpointError, match=rf"{name}.* imports \S+, which could run code"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy.ctypeslib", "load_library"),
    ],
)
def test_a_pickle_that_imports_anything_else_is_rejected(
    tmp_path: Path, module: str, name: str
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(CheckpointError, match=rf"{module}\.{name}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        pytest.param("model.pkl", b"", "damaged or not a checkpoint: it is empty", id="empty pkl"),
        pytest.param("model.pth", b"", "damaged or not a checkpoint: it is empty", id="empty pth"),
        pytest.param("model.pth", b"not a checkpoint", "a text file", id="text as pth"),
        pytest.param("model.pkl", b"\x80\x04garbage", "damaged", id="garbage pkl"),
        pytest.param(
            "model.safetensors",
            b"\xff" * 99,
            "damaged or not a safetensors",
            id="garbage safetensors",
        ),
        pytest.param("model.onnx", b"", r"\.pth.*\.pkl", id="another kind of file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=named) as raised:
        read_checkpoint(tmp_path / name)
    assert name in str(raised.value)


def write(path: Path, kind: str) -> None:
    match kind:
        case "zip":
            torch.save({"model": tensors()}, path)
        case "legacy":
            torch.save({"model": tensors()}, path, _use_new_zipfile_serialization=False)
        case "pickle":
            save(path, {"model": arrays()})
        case "safetensors":
            save_file(dict(tensors()), path)


@pytest.mark.parametrize(
    ("name", "kind", "first"),
    [
        ("model.pth", "zip", 0.0),
        # Cut inside one of the first names, torch rejects the rest of it.
        ("model.pth", "legacy", 0.8),
        ("model.pkl", "pickle", 0.0),
        ("model.safetensors", "safetensors", 0.0),
    ],
)
def test_a_file_cut_short_anywhere_is_named(
    tmp_path: Path, name: str, kind: str, first: float
) -> None:
    path = tmp_path / name
    write(path, kind)
    whole = path.read_bytes()
    for length in np.linspace(first * len(whole), len(whole) - 1, 60, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=rf"{name}: it is truncated"):
            read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth.* does not exist"):
        read_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param({}, "a dict of length 0, expected", id="empty"),
        pytest.param([1, 2], "a list of length 2, expected", id="a list"),
        pytest.param({"model": {"weight": "text"}}, "'weight' is a str", id="text as weight"),
        pytest.param({"model": "text"}, "'model' is a str", id="text as weights"),
        pytest.param({"model": {7: WEIGHT}}, "entry 7", id="a number as name"),
        pytest.param(
            {"model": {"weight": np.array([object()])}}, "ndarray|object", id="array of objects"
        ),
    ],
)
def test_content_without_weights_is_described(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_checkpoint(save(tmp_path / "model.pkl", content))
