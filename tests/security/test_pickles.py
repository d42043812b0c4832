"""Pickles that run a command: in checkpoints, archives and requests.

Tests of each layer: tests/building/checkpoint/test_files.py, tests/inputs/test_npy.py.
"""

import io
import pickle
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from d2serve.cli.main import invoke
from d2serve.errors import CheckpointError
from d2serve.messages import HttpRequest, Part
from d2serve.model.weights import read_weights
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.fakes import FakeDetector, metadata_of
from tests.goldens.cases import CONFIGS
from tests.security.payloads import Command, assert_dangerous

CONFIG = CONFIGS / "mask_rcnn_r50.yaml"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that a payload leaves when it runs."""
    return tmp_path / "it ran"


def torch_file(path: Path, content: object) -> bytes:
    """A checkpoint as torch.save writes it, with this pickle."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as packed:
        [name] = [name for name in packed.namelist() if name.endswith("/data.pkl")]
        return packed.read(name)


def old_torch_file(path: Path, content: object) -> bytes:
    """As torch.save wrote it before 1.6: pickles one after the other, the content behind three."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with path.open("rb") as file:
        for _ in range(3):
            pickle.load(file)
        return file.read()


def bare_pickle(path: Path, content: object) -> bytes:
    path.write_bytes(pickle.dumps(content))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("model_final.pth", torch_file),
        ("model_final.pt", torch_file),
        ("model_final.ckpt", old_torch_file),
        ("model_final.pth", bare_pickle),
        ("model_final.pkl", bare_pickle),
    ],
)
@pytest.mark.parametrize("content", ["model", "optimizer"])
def test_a_command_in_a_checkpoint_does_not_run_in_make_archive(
    tmp_path: Path,
    trace: Path,
    file: str,
    write: Callable[[Path, object], bytes],
    content: str,
) -> None:
    assert_dangerous(write(tmp_path / file, {content: Command(trace)}), trace)
    store = tmp_path / "store"
    arguments = ["--config", str(CONFIG), "--weights", str(tmp_path / file), "--name", "evil"]
    with pytest.raises(
        CheckpointError, match=rf"checkpoint .*{file}: .*(could run code|not a torch)"
    ):
        invoke(["archive", *arguments, "--model-store", str(store)])
    assert not trace.exists()
    assert not store.exists()


def npy_of(command: Command) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[command]], dtype=object), allow_pickle=True)
    return file.getvalue()


def npz_of(command: Command) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, image=np.array([[command]], dtype=object))
    return file.getvalue()


def in_json(body: bytes) -> bytes:
    return b'{"image": "%s"}' % b64encode(body)


@pytest.mark.parametrize(
    ("make", "content_type", "status"),
    [
        (npy_of, "application/x-npy", 422),
        (npy_of, "", 422),
        (lambda command: in_json(npy_of(command)), "application/json", 422),
        (npz_of, "application/x-npy", 400),
        (npz_of, "application/octet-stream", 415),
        (npz_of, "application/x-npz", 415),
        (pickle.dumps, "application/x-npy", 400),
        (pickle.dumps, "", 415),
        (pickle.dumps, "application/python-pickle", 415),
    ],
)
def test_a_command_in_a_request_does_not_run(
    trace: Path, make: Callable[[Command], bytes], content_type: str, status: int
) -> None:
    assert_loads_dangerously(npy_of(Command(trace)), trace)
    assert_loads_dangerously(npz_of(Command(trace)), trace)
    assert_dangerous(pickle.dumps(Command(trace)), trace)
    part = Part(content_type, make(Command(trace)))
    pipeline = Pipeline(FakeDetector(), metadata_of("ball"), Settings())
    [response] = pipeline.run([HttpRequest({"content-type": content_type}, (part,))])
    assert response.status == status
    assert not trace.exists()


def assert_loads_dangerously(array: bytes, trace: Path) -> None:
    """Check that numpy runs it if it may unpickle, and remove the trace."""
    loaded = np.load(io.BytesIO(array), allow_pickle=True)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        assert loaded["image"].shape == (1, 1)
    assert trace.exists(), "the payload does not run"
    trace.unlink()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_command_in_an_archives_weights_does_not_run(
    tmp_path: Path, trace: Path, mapped: bool
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"layer": Command(trace)}, weights)
    torch.load(weights, weights_only=False)
    assert trace.exists(), "the payload does not run"
    trace.unlink()
    with pytest.raises(CheckpointError, match=r"weights weights\.pt cannot be read"):
        read_weights(weights, mapped=mapped)
    assert not trace.exists()
