"""Reading checkpoints: what fits, what does not, and what would run code."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from handler.rcnn.checkpoint import (
    CheckpointError,
    load_weights,
    read_checkpoint,
    read_weights,
    write_weights,
)

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1.0, -1.0], dtype=np.float32)


class Exploit:
    """Leaves a file behind when a plain unpickler meets it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def tensors() -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(weight=torch.from_numpy(WEIGHT), bias=torch.from_numpy(BIAS))


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {"weight": WEIGHT, "bias": BIAS}


def save(path: Path, content: object) -> Path:
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("model.pth", {"model": tensors()}, id="Detectron2's pth"),
        pytest.param("model.pth", tensors(), id="bare state dict"),
        pytest.param(
            "model.pth",
            {
                "model": tensors(),
                "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}},
                "scheduler": {"base_lrs": [0.02], "last_epoch": 9},
                "iteration": 9,
                "best_metric": np.float64(41.0),
            },
            id="training state beside the weights",
        ),
        pytest.param(
            "model.pkl", {"model": arrays(), "__author__": "Detectron2 Model Zoo"}, id="zoo's pkl"
        ),
        pytest.param("model.pkl", arrays(), id="bare pkl"),
    ],
)
def test_reads_every_form_of_checkpoint(tmp_path: Path, name: str, content: object) -> None:
    weights = read_checkpoint(save(tmp_path / name, content))
    assert list(weights) == ["weight", "bias"]
    np.testing.assert_array_equal(weights["weight"].numpy(), WEIGHT)
    np.testing.assert_array_equal(weights["bias"].numpy(), BIAS)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": arrays()}, protocol=protocol))
    np.testing.assert_array_equal(read_checkpoint(path)["weight"].numpy(), WEIGHT)


@pytest.mark.parametrize("name", ["model.pth", "model.pkl"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    path = save(
        tmp_path / name,
        {"model": tensors() if "pth" in name else arrays()} | {"hook": Exploit(trace)},
    )
    with pytest.raises(CheckpointError, match=name):
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
def test_a_pickle_that_asks_for_anything_else_is_refused(
    tmp_path: Path, module: str, name: str
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(CheckpointError, match=rf"{module}\.{name}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        pytest.param("model.pkl", b"", "damaged", id="empty pkl"),
        pytest.param("model.pth", b"", "damaged", id="empty pth"),
        pytest.param("model.pth", b"not a checkpoint", "damaged|could run code", id="text as pth"),
        pytest.param("model.pkl", b"\x80\x04garbage", "damaged", id="garbage pkl"),
        pytest.param("model.onnx", b"", r"\.pkl, \.pth", id="another kind of file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=named) as raised:
        read_checkpoint(tmp_path / name)
    assert name in str(raised.value)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pth", {"model": tensors()})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param({}, "neither", id="empty"),
        pytest.param([1, 2], "neither", id="a list"),
        pytest.param({"model": {"weight": "text"}}, "'weight' is a str", id="text as weight"),
        pytest.param({"model": {7: WEIGHT}}, "entry 7", id="a number as name"),
        pytest.param(
            {"model": {"weight": np.array([object()])}}, "ndarray|object", id="array of objects"
        ),
        pytest.param(
            {"model": {"weight": WEIGHT}, "matching_heuristics": True},
            "matching_heuristics",
            id="another framework's names",
        ),
    ],
)
def test_what_is_not_weights_is_named(tmp_path: Path, content: object, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_checkpoint(save(tmp_path / "model.pkl", content))


def test_missing_unexpected_and_misshaped_names_come_in_one_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    weights = {
        "0.weight": torch.zeros(5, 3),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(2, 2),
        "extra.weight": torch.zeros(1),
    }
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, weights)
    assert "missing: 1.bias (2,)" in str(raised.value)
    assert "unexpected: extra.weight (1,)" in str(raised.value)
    assert "shape of 0.weight: (5, 3), the config needs (2, 3)" in str(raised.value)
    assert "0.bias" not in str(raised.value)


def test_what_older_checkpoints_carry_besides_is_left() -> None:
    model = nn.Linear(3, 2)
    besides = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
        "roi_heads.box_predictor.fed_loss_cls_weights": torch.ones(1203),
    }
    load_weights(model, {**tensors(), **besides})
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


def test_half_precision_weights_become_float32() -> None:
    model = nn.Linear(3, 2)
    load_weights(model, {name: tensor.half() for name, tensor in tensors().items()})
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, torch.from_numpy(WEIGHT))


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
