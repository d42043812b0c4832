"""A model whose files are not those that were packed is not served, and `make serve` says why."""

import shutil
import zipfile
from pathlib import Path

import httpx
import pytest
from ts.context import Context

from d2serve.servers.torchserve.handler import Detectron2Handler
from d2serve.servers.torchserve.launcher.server import ServerError, running_server
from d2serve.serving.integrity import IntegrityError


@pytest.fixture
def unpacked(shapes_mar: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    with zipfile.ZipFile(shapes_mar) as packed:
        packed.extractall(folder)
    return folder


def context_of(folder: Path) -> Context:
    return Context("shapes", str(folder), {}, 1, None, "0.12.0")


@pytest.mark.parametrize("name", ["weights.pt", "config.yaml", "classes.json"])
def test_files_are_checked_before_any_is_read(unpacked: Path, name: str) -> None:
    (unpacked / name).write_bytes(b"\x80 neither YAML nor JSON nor zip")
    (unpacked / "model-config.yaml").write_text("nonsense: [")
    with pytest.raises(IntegrityError, match=f"changed '{name}'"):
        Detectron2Handler().initialize(context_of(unpacked))


def test_make_serve_names_the_file(unpacked: Path, tmp_path: Path) -> None:
    weights = bytearray((unpacked / "weights.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (unpacked / "weights.pt").write_bytes(weights)
    shutil.copy(unpacked / "classes.json", unpacked / "more.json")
    with (
        pytest.raises(ServerError) as refused,
        running_server(unpacked, log_dir=tmp_path / "logs") as server,
    ):
        httpx.get(f"{server.url}/ping", trust_env=False)
    reason = "SHA256SUMS: additional 'more.json', changed 'weights.pt'"
    assert reason in str(refused.value)
