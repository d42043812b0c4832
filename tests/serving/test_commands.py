"""The command lines against the real server."""

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

from d2serve.cli import predict
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.environment import clean_environment
from tests.serving.traffic import picture_body

# Far longer than it takes, so that a server that never ends fails its test.
ENDS_WITHIN_S = 120


@pytest.fixture
def folder(samples: list[Path], tmp_path: Path) -> Path:
    """Two pictures, and one that is cut off, in a folder below."""
    (tmp_path / "deep").mkdir()
    for sample in samples[:2]:
        shutil.copy(sample, tmp_path)
    (tmp_path / "deep" / "cut.jpg").write_bytes(samples[0].read_bytes()[:2000])
    return tmp_path


@pytest.fixture
def serving(repo_root: Path, shapes_mar: Path) -> "Iterator[subprocess.Popen[str]]":
    """`d2serve serve` as make starts it, on free ports."""
    command = [sys.executable, "-m", "d2serve.cli.serve", "--model", str(shapes_mar)]
    command += ["--port", str(Ports.free().inference)]
    with subprocess.Popen(command, cwd=repo_root, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_predict_prints_a_table(
    url: str, samples: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(samples[0]), "--url", url]) == 0
    printed = capsys.readouterr().out
    assert all(column in printed for column in ("file", "label", "score", "box"))
    assert samples[0].name in printed


def test_predict_goes_on_after_a_refused_picture(
    url: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlays = tmp_path / "out"
    arguments = [str(folder), "--url", url, "--json", "--overlay", str(overlays)]
    assert predict.main(arguments) == 1
    refused, *answered = json.loads(capsys.readouterr().out)
    assert refused["file"].endswith("cut.jpg")
    assert refused["error"]["code"] == "bad_request"
    assert all(outcome["answer"]["names"] for outcome in answered)
    for path in overlays.iterdir():
        with Image.open(path) as overlay, Image.open(folder / path.name) as picture:
            assert (overlay.size, overlay.format) == (picture.size, picture.format)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_says_where_and_stops_when_told(
    serving: "subprocess.Popen[str]", http: httpx.Client, jpeg: Path, stop: signal.Signals
) -> None:
    assert serving.stdout is not None
    greeting = serving.stdout.readline()
    url = greeting.split("is served at ")[1].split(";")[0]
    assert f"--data-binary @picture.jpg {url}" in greeting
    assert picture_body(jpeg).post(http, url).status_code == 200
    serving.send_signal(stop)
    assert serving.wait(timeout=ENDS_WITHIN_S) == 0
    with pytest.raises(httpx.ConnectError):
        http.get(url)


def test_make_passes_sigterm_on_to_the_server(
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
        process.wait(timeout=ENDS_WITHIN_S)
    with pytest.raises(httpx.ConnectError):
        http.get(f"http://127.0.0.1:{port}/ping")
