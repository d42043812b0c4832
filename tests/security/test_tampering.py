"""An archive with changed files is not served, and `d2serve serve` reports the reason."""

import shutil
import zipfile
from pathlib import Path

import httpx
import pytest
from ts.context import Context

from d2serve.errors import ArchiveError, ServerError
from d2serve.servers.torchserve.handler import Detectron2Handler
from d2serve.servers.torchserve.launcher.server import running_server


@pytest.fixture
def unpacked(shapes_mar: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    with zipfile.ZipFile(shapes_mar) as packed:
        packed.extractall(folder)
    return folder


def context_of(folder: Path) -> Context:
    return Context("shapes", str(folder), {}, 1, None, "0.12.0")


@pytest.mark.parametrize("name", ["weights.pt", "model.json", "classes.json"])
def test_files_are_checked_before_any_is_read(unpacked: Path, name: str) -> None:
    (unpacked / "model" / name).write_bytes(b"\x80 neither YAML nor JSON nor zip")
    (unpacked / "model-config.yaml").write_text("nonsense: [")
    with pytest.raises(ArchiveError, match=f"changed 'model/{name}'"):
        Detectron2Handler().initialize(context_of(unpacked))


def test_make_serve_names_the_file(unpacked: Path, tmp_path: Path) -> None:
    weights = bytearray((unpacked / "model" / "weights.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (unpacked / "model" / "weights.pt").write_bytes(weights)
    shutil.copy(unpacked / "model" / "classes.json", unpacked / "more.json")
    with (
        pytest.raises(ServerError) as raised,
        running_server(unpacked, log_dir=tmp_path / "logs") as server,
    ):
        httpx.get(f"{server.url}/ping", timeout=60, trust_env=False)
    reason = "SHA256SUMS: unexpected 'more.json', changed 'model/weights.pt'"
    assert reason in str(raised.value)
