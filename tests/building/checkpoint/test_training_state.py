"""Training state beside the weights is skipped, whatever it consists of, and runs no code."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import io
import itertools
import pathlib
import pickle
import random
import sys
import types
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from d2serve.building.checkpoint import read_checkpoint
from tests.building.checkpoint.saving import arrays, assert_same, tensors

SCALARS = [
    *(np.uint8(7), np.int8(-7), np.uint16(7), np.int64(7), np.uint64(7), np.bool_(True)),
    *(np.float16(0.5), np.float32(0.5), np.float64(0.5), np.complex64(1j)),
    *(np.str_("text"), np.bytes_(b"bytes"), np.datetime64("2026-01-01"), np.timedelta64(3, "s")),
]
ARRAYS = [
    *(np.zeros((2, 3), kind) for kind in ("u1", "f2", "f8", "i8", "?", "c8", ">f4")),
    *(np.zeros((0, 4)), np.array(3.0), np.asfortranarray(np.ones((2, 3)))),
    *(np.array(["a", "b"]), np.array([b"a"]), np.array([object, None, {}], dtype=object)),
    np.zeros(2, [("x", "f4"), ("y", "i4")]),
    np.ma.masked_array([1, 2], [True, False]),  # type: ignore[no-untyped-call]
]


class Choice(enum.Enum):
    FIRST = 1


class CfgNode(dict[str, Any]):
    """As yacs's: a dict with attributes."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.__dict__["frozen"] = True


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.float64(1)


class Listed(list[Any]):
    """A list with attributes, such as a project's history."""


def scheduler_state() -> dict[str, Any]:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    optimizer.step()
    scheduler.step()
    return {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "live": scheduler.optimizer.param_groups[0]["params"],
    }


OBJECTS: dict[str, Callable[[], Any]] = {
    "numpy scalars": lambda: SCALARS,
    "numpy arrays": lambda: ARRAYS,
    "containers": lambda: [
        *(collections.Counter("aab"), collections.deque([1, 2], 3), {1, 2}, frozenset({3})),
        *(collections.defaultdict(list, a=[1]), collections.OrderedDict(a=1)),
        *(slice(1, 2), range(3), 1j, bytearray(b"x"), b"\xff", Ellipsis, NotImplemented),
    ],
    "paths": lambda: [pathlib.Path("a"), pathlib.PureWindowsPath("c:\\a")],
    "namespaces": lambda: [argparse.Namespace(lr=0.1), types.SimpleNamespace(lr=0.1)],
    "times": lambda: [
        datetime.datetime.now(datetime.timezone.utc),
        *(datetime.timedelta(1), uuid.uuid4(), decimal.Decimal("0.1")),
    ],
    "random numbers": lambda: {
        "torch": torch.Generator().get_state(),
        "numpy": np.random.RandomState(0).get_state(),
        "generator": np.random.default_rng(0),
        "python": random.getstate(),
        "object": random.Random(1),
    },
    "optimizer and schedule": scheduler_state,
    "classes of a project": lambda: [Choice.FIRST, CfgNode({"a": 1}), Slotted(), Listed([1])],
    "classes": lambda: [int, dict, nn.Linear, np.float32, torch.float32, torch.device("cpu")],
    "a method": lambda: nn.Linear(1, 1).forward,
    "iterators": lambda: [itertools.count(3), functools.partial(torch.optim.SGD, lr=0.1)],
    "a network": lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)),
    "subclass of a tensor": lambda: [nn.Parameter(torch.ones(2)), nn.Buffer(torch.ones(1))],
    "a sparse tensor": lambda: torch.ones(2, 2).to_sparse(),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
}


def with_numpy_1_names(content: bytes) -> bytes:
    """The pickle as numpy 1 writes it; protocols before 4 end names by newlines."""
    return content.replace(b"numpy._core.", b"numpy.core.")


def save_torch(path: Path, content: Any, *, old: bool, protocol: int, legacy: bool) -> None:
    written = io.BytesIO()
    torch.save(
        content,
        written,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    if legacy or not old:
        path.write_bytes(with_numpy_1_names(written.getvalue()) if old else written.getvalue())
        return
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            target.writestr(name, with_numpy_1_names(part) if name.endswith(".pkl") else part)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", OBJECTS)
def test_torch_files_with_training_state_are_read(
    tmp_path: Path, kind: str, protocol: int, legacy: bool
) -> None:
    content = {"model": tensors(), "state": {"deep": [OBJECTS[kind]()]}, "epoch": np.int64(3)}
    path = tmp_path / "model.pth"
    save_torch(path, content, old=False, protocol=protocol, legacy=legacy)
    assert_same(read_checkpoint(path), tensors())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["numpy scalars", "numpy arrays"])
def test_torch_files_of_numpy_1_are_read(tmp_path: Path, kind: str, legacy: bool) -> None:
    content = {"model": tensors(), "state": OBJECTS[kind]()}
    path = tmp_path / "model.pth"
    save_torch(path, content, old=True, protocol=2, legacy=legacy)
    assert_same(read_checkpoint(path), tensors())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [kind for kind in OBJECTS if "tensor" not in kind])
def test_pickles_with_training_state_are_read(tmp_path: Path, kind: str, protocol: int) -> None:
    state = OBJECTS[kind]()
    if kind == "classes of a project" and protocol < 2:
        state = state[:2]  # slots need protocol 2
    path = tmp_path / "model.pkl"
    written = pickle.dumps({"model": arrays(), "state": state}, protocol)
    path.write_bytes(with_numpy_1_names(written) if protocol < 4 else written)
    assert_same(read_checkpoint(path), tensors())


def test_weights_that_are_parameters_and_tensors_with_attributes_are_read(tmp_path: Path) -> None:
    marked = nn.Parameter(tensors()["weight"])
    marked.sharded = False  # type: ignore[attr-defined]
    named = tensors()["bias"]
    named.tag = "x"  # type: ignore[attr-defined]
    torch.save({"model": {"weight": marked, "bias": named}}, tmp_path / "model.pth")
    assert_same(read_checkpoint(tmp_path / "model.pth"), tensors())


def test_weights_that_are_numpy_arrays_in_a_torch_file_are_read(tmp_path: Path) -> None:
    torch.save({"model": arrays()}, tmp_path / "model.pth")
    assert_same(read_checkpoint(tmp_path / "model.pth"), tensors())


def test_views_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    views = {"part": base[1:, ::2], "turned": base.T, "row": base[2], "empty": base[:0]}
    torch.save(views, tmp_path / "model.pth")
    assert_same(read_checkpoint(tmp_path / "model.pth"), views)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_class_that_no_longer_exists_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    module = types.ModuleType("lost_project")
    exec(
        "class Config:\n    def __setstate__(self, state):\n        raise SystemExit", vars(module)
    )
    monkeypatch.setitem(sys.modules, "lost_project", module)
    config = module.Config()
    config.lr = 0.1
    path = tmp_path / "model.pth"
    save_torch(path, {"model": tensors(), "cfg": config}, old=False, protocol=2, legacy=legacy)
    monkeypatch.delitem(sys.modules, "lost_project")
    assert_same(read_checkpoint(path), tensors())
