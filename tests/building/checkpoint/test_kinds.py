"""A file that is not a checkpoint is named as what it is, with what to do."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from d2serve.building.checkpoint import read_checkpoint
from d2serve.errors import CheckpointError
from tests.bodies import image_bytes, noise
from tests.building.checkpoint.saving import arrays, assert_same, tensors

HTML = "<!DOCTYPE html><html><head><title>Sign in: Projet é</title></head><body>…</body></html>"
XML = '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 178\n"


def torch_bytes(content: object, *, legacy: bool = False) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=not legacy)
    return written.getvalue()


def zip_bytes(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as packed:
        for name in names:
            packed.writestr(name, torch_bytes(tensors()))
    return written.getvalue()


def tar_bytes() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("model_final.pth"), io.BytesIO())
    return written.getvalue()


def script_bytes() -> bytes:
    written = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), written)
    return written.getvalue()


def npz_bytes() -> bytes:
    written = io.BytesIO()
    np.savez(written, weight=arrays()["weight"])
    return written.getvalue()


ONNX = b"\x08\x07\x12\x07pytorch\x1a\x051.0.0:\x80\x01\n\x10"
SAVED = torch_bytes({"model": tensors()})
KINDS = {
    "a login page": (HTML.encode(), r"is an HTML page; the server did not send"),
    "a page in Latin-1": (HTML.replace("…", "").encode("latin1"), "HTML page"),
    "a page in UTF-16": (HTML.encode("utf-16"), "HTML page"),
    "a page with a byte order mark": (b"\xef\xbb\xbf\n" + HTML.encode(), "HTML page"),
    "a long page": (HTML.encode() * 999, "HTML page"),
    "an error of S3": (XML.encode(), "is an XML document .*; the server"),
    "an error in JSON": (b'{"error": "Unauthorized"}', r'JSON document \(\{"error": "Unau'),
    "a list in JSON": (b'[\n {"message": "Not Found"}]', "JSON document"),
    "a pointer of Git LFS": (LFS.encode(), "pointer.*git lfs pull"),
    "a pointer of git-annex": (b"../.git/annex/objects/x/SHA256E-s178--4d", "git annex get"),
    "another text": (b"404: Not Found\n", r"a text file \(404: Not Found\); use the file"),
    "a config": (b"MODEL:\n  MASK_ON: true\n", r"a text file \(MODEL:\)"),
    "gzip": (gzip.compress(SAVED), "is a gzip file; unpack it"),
    "bzip2": (bz2.compress(SAVED), "is a bzip2 file; unpack it"),
    "xz": (lzma.compress(SAVED), "is a xz|an xz file; unpack it"),
    "tar": (tar_bytes(), "is a tar file; unpack it"),
    "a zip of a checkpoint": (
        zip_bytes("a/model_final.pth"),
        r"contains a/model_final\.pth; unpack",
    ),
    "an archive": (zip_bytes("MAR-INF/MANIFEST.json", "model/x"), r"\(\.mar\); serve it"),
    "npz": (npz_bytes(), r"\.npz"),
    "npy": (b"\x93NUMPY\1\0v\0{'descr'}", r"numpy array \(\.npy\)"),
    "TorchScript": (script_bytes(), "TorchScript.*use the checkpoint"),
    "ONNX": (ONNX, "an ONNX network; .*use the checkpoint"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "TensorRT": (b"ptrt\0\0\1", "TensorRT engine"),
    "an image": (image_bytes(noise(4, 4, 3), "PNG"), "PNG image"),
    "zeros": (bytes(9000), "all zero; its download did not finish"),
}


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    content, named = KINDS[kind]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m{suffix}: it is .*{named}|{named}") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)
    assert "damaged" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_an_empty_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    path.touch()
    with pytest.raises(CheckpointError, match="it is empty"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pkl", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SAVED, id="torch's zip"),
        pytest.param(torch_bytes({"model": tensors()}, legacy=True), id="torch's old format"),
        pytest.param(pickle.dumps({"model": arrays()}, 2), id="pickle 2"),
        pytest.param(pickle.dumps({"model": arrays()}, 5), id="pickle 5"),
        pytest.param(pickle.dumps({"model": tensors()}, 4), id="pickle of tensors"),
        pytest.param(safetensors_bytes(dict(tensors())), id="safetensors"),
    ],
)
def test_the_content_decides_and_not_the_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"m{suffix}").write_bytes(content)
    assert_same(read_checkpoint(tmp_path / f"m{suffix}"), tensors())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", ["", "model"])
def test_a_pickled_network_is_named(tmp_path: Path, key: str, legacy: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    content = {key: network, "epoch": 3} if key else network
    (tmp_path / "m.pth").write_bytes(torch_bytes(content, legacy=legacy))
    with pytest.raises(
        CheckpointError, match=r"a pickled torch\.nn\.modules\.container\.Sequential object.*save"
    ):
        read_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(((("x",) * 9,) * 9,) * 9, id="a deep tuple"),
        pytest.param("x" * 10_000, id="a long text"),
        pytest.param("two\nlines\x1b[31m", id="control characters"),
    ],
)
def test_a_message_stays_in_one_line(tmp_path: Path, key: object) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({key: None, "bias": 1}))
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(tmp_path / "m.pkl")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600
