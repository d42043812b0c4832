"""Paths with characters beyond ASCII, in every locale."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from d2serve.servers.torchserve.launcher import config
from d2serve.servers.torchserve.launcher.config import server_environment, write_properties
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.processes import temporary_home
from d2serve.servers.torchserve.launcher.server import running_server
from tests.polling import wait_until
from tests.shell import is_healthy

NAME = "Projet é 模型 😀"
SAMPLE = Path("models/shapes/samples/shapes_01.jpg")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("/plain", b"k=/plain\n"),
        ("/Projet é", b"k=/Projet \\u00e9\n"),
        ("/模型", b"k=/\\u6a21\\u578b\n"),
        ("/😀", b"k=/\\ud83d\\ude00\n"),
        ("a\\b", b"k=a\\\\b\n"),
    ],
)
def test_properties_are_written_as_java_reads_them(
    tmp_path: Path, value: str, written: bytes
) -> None:
    write_properties(tmp_path / "p", {"k": value})
    assert (tmp_path / "p").read_bytes() == written


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {"LC_ALL": "C.UTF-8"}),
        ({"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}),
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, {"LC_ALL": "C.UTF-8"}),
        ({"LC_CTYPE": "fr_FR.ISO-8859-1"}, {"LC_ALL": "C.UTF-8"}),
        ({"LANG": "fr_FR@euro"}, {"LC_ALL": "C.UTF-8"}),
        ({"LANG": "de_DE.utf8"}, {}),
        ({"LC_ALL": "", "LC_CTYPE": "C.UTF-8", "LANG": "C"}, {}),
        ({"LANG": "ca_ES.UTF-8@valencia"}, {}),
    ],
)
def test_java_encodes_paths_as_utf_8(given: dict[str, str], added: dict[str, str]) -> None:
    environment = server_environment(given, Path("/home"), Path("/java"), Path("/logs"))
    assert environment.get("LC_ALL", "") == {"LC_ALL": "", **given, **added}["LC_ALL"]


def test_the_length_of_a_temporary_folder_counts_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("/tmp", "模" * 30)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with temporary_home() as home:
        assert home.parent == Path("/tmp")


@pytest.fixture
def folder(tmp_path: Path, shapes_mar: Path) -> Path:
    """A folder of that name with the bundled model's archive and the metrics file."""
    folder = tmp_path / NAME
    (folder / "tmp").mkdir(parents=True)
    shutil.copyfile(shapes_mar, folder / "模型.mar")
    shutil.copyfile(config.METRICS_FILE, folder / "metrics.yaml")
    return folder


@pytest.fixture
def short_temporary_folder() -> Iterator[Path]:
    """A temporary folder beyond ASCII that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="é模", dir="/tmp") as folder:
        yield Path(folder)


def test_torchserve_serves(
    folder: Path, short_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "METRICS_FILE", folder / "metrics.yaml")
    monkeypatch.setattr(tempfile, "tempdir", str(short_temporary_folder))
    monkeypatch.setenv("LC_ALL", "C")
    with running_server(folder / "模型.mar", log_dir=folder / "logs") as server:
        response = httpx.post(f"{server.url}/invocations", content=SAMPLE.read_bytes(), timeout=60)
    assert response.status_code == 200
    assert response.json()["labels"]


def test_the_asgi_server_serves(folder: Path) -> None:
    port = Ports.free().inference
    command = [sys.executable, "-m", "d2serve.cli.main", "serve", str(folder / "模型.mar")]
    server = subprocess.Popen(
        [*command, "--server", "asgi", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until_ready(server, port)
        url = f"http://127.0.0.1:{port}/invocations"
        response = httpx.post(url, content=SAMPLE.read_bytes(), timeout=60)
    finally:
        server.terminate()
        output = server.communicate(timeout=60)[0].decode()
    assert response.status_code == 200, output
    assert response.json()["labels"]
    assert "Traceback" not in output


def wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    def is_ready() -> bool:
        assert server.poll() is None
        return is_healthy(f"http://127.0.0.1:{port}/ping")

    wait_until(is_ready, within_s=300, every_s=0.1)
