"""The command line against the real server."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from d2serve.cli.main import invoke
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.environment import clean_environment
from tests.serving.traffic import image_body

# Far longer than necessary, so that a server that never exits fails its test.
EXIT_TIMEOUT_S = 120


@pytest.fixture
def folder(samples: list[Path], tmp_path: Path) -> Path:
    """Two images, and a truncated one in a subfolder."""
    (tmp_path / "deep").mkdir()
    for sample in samples[:2]:
        shutil.copy(sample, tmp_path)
    (tmp_path / "deep" / "cut.jpg").write_bytes(samples[0].read_bytes()[:2000])
    return tmp_path


@pytest.fixture
def serving(repo_root: Path, shapes_mar: Path) -> "Iterator[subprocess.Popen[str]]":
    """`d2serve serve` on free ports."""
    command = [sys.executable, "-m", "d2serve.cli.main", "serve", str(shapes_mar)]
    command += ["--port", str(Ports.free().inference)]
    with subprocess.Popen(command, cwd=repo_root, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_predict_prints_a_table(
    url: str, samples: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["predict", str(samples[0]), "--url", url]) == 0
    printed = capsys.readouterr().out
    assert all(column in printed for column in ("file", "label", "score", "box"))
    assert samples[0].name in printed


def test_predict_continues_after_a_rejected_image(
    url: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlays = tmp_path / "out"
    arguments = ["predict", str(folder), "--url", url, "--json", "--overlay", str(overlays)]
    assert invoke(arguments) == 1
    rejected, *predicted = json.loads(capsys.readouterr().out)
    assert rejected["file"].endswith("cut.jpg")
    assert rejected["error"]["code"] == "bad_request"
    assert all(result["answer"]["names"] for result in predicted)
    for path in overlays.iterdir():
        with Image.open(path) as overlay, Image.open(folder / path.name) as image:
            assert (overlay.size, overlay.format) == (image.size, image.format)


def test_serve_prints_the_url_and_stops_on_ctrl_c(
    serving: "subprocess.Popen[str]", http: httpx.Client, jpeg: Path
) -> None:
    """SIGTERM is below; tests/cli/test_run.py has the other signals, which all commands share."""
    assert serving.stdout is not None
    startup_line = serving.stdout.readline()
    url = startup_line.split("is served at ")[1].split(";")[0]
    assert f"--data-binary @image.jpg {url}" in startup_line
    assert image_body(jpeg).post(http, url).status_code == 200
    serving.send_signal(signal.SIGINT)
    assert serving.wait(timeout=EXIT_TIMEOUT_S) == 0
    with pytest.raises(httpx.ConnectError):
        http.get(url)


def test_make_forwards_sigterm_to_the_server(
    repo_root: Path, shapes_mar: Path, http: httpx.Client
) -> None:
    port = Ports.free().inference
    command = ["make", "-o", ".venv/.installed", "serve", f"MODEL={shapes_mar}", f"PORT={port}"]
    with subprocess.Popen(
        command, cwd=repo_root, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "is served at" in process.stdout.readline()
        process.terminate()
        process.wait(timeout=EXIT_TIMEOUT_S)
    with pytest.raises(httpx.ConnectError):
        http.get(f"http://127.0.0.1:{port}/ping")
