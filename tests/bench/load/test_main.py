"""The command, against a server that answers as it is told, and against its own TorchServe."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.load.__main__ import main
from d2serve.errors import CommandError
from tests.bench.load.fake_server import FakeServer, running
from tests.environment import clean_environment

SHORT = ["--seconds", "0.5", "--warm-up", "0.1"]


@pytest.fixture
def samples(shapes: Path) -> Path:
    return shapes / "samples"


def points_in(out: Path) -> list[dict[str, object]]:
    points: list[dict[str, object]] = json.loads((out / "results.json").read_text())["points"]
    return points


def test_a_running_server_is_swept_over_clients(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(FakeServer(lag_s=0.02)) as fake:
        arguments = ["--url", fake.url, "--pictures", str(samples), "--out", str(tmp_path)]
        assert main([*arguments, *SHORT, "--clients", "1", "4", "--fractions", "0.5"]) == 0
    one, four, opened = points_in(tmp_path)
    assert one["settings"] is None
    assert (one["traffic"], four["traffic"]) == (
        {"loop": "ClosedLoop", "clients": 1},
        {"loop": "ClosedLoop", "clients": 4},
    )
    assert isinstance(opened["traffic"], dict)
    assert opened["traffic"]["loop"] == "OpenLoop"
    assert one["cpu"]
    printed = capsys.readouterr().out
    assert "With 4 clients:" in printed
    assert f"the report: {tmp_path / 'report.html'}" in printed


def test_its_own_server_is_swept_over_settings(
    tmp_path: Path,
    shapes_mar: Path,
    samples: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = min(samples.iterdir(), key=lambda file: file.stat().st_size)
    arguments = ["--model", str(shapes_mar), "--pictures", str(picture), "--quick"]
    settings = ["--batch-sizes", "3", "--delays-ms", "7", "--threads", "1", "--fractions", "1"]
    assert main([*arguments, *settings, "--clients", "1", "--seconds", "2"]) == 0
    closed, opened = points_in(tmp_path / "out" / "loadtest")
    assert closed["settings"] == {"batch_size": 3, "max_delay_ms": 7, "workers": 1, "threads": 1}
    for point in (closed, opened):
        assert isinstance(point["load"], dict)
        assert point["load"]["requests"] > 0
        # A loaded machine may refuse what comes too fast; anything else is a fault.
        assert set(point["load"]["statuses"]) <= {"200", "503"}
    assert isinstance(closed["load"], dict)
    assert closed["load"]["failures"] == 0
    assert isinstance(closed["cpu"], dict)
    assert closed["cpu"]["workers"] > 0
    assert closed["cpu"]["frontend"] > 0
    assert "batchSize: 3\nmaxBatchDelay: 7\n" in capsys.readouterr().out


def test_ctrl_c_ends_with_a_report_of_what_there_is(
    tmp_path: Path, repo_root: Path, samples: Path
) -> None:
    with running(FakeServer(lag_s=0.01)) as fake:
        command = [sys.executable, "-m", "bench.load", "--url", fake.url, *SHORT]
        command += ["--pictures", str(samples), "--out", str(tmp_path), "--clients", "1", "16"]
        process = subprocess.Popen(
            command, cwd=repo_root, env=clean_environment(), stdout=subprocess.PIPE, text=True
        )
        # Two requests at once are the second point's, so the first has been measured.
        while fake.most_at_once < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
    assert process.returncode == 130
    [point] = points_in(tmp_path)
    assert point["traffic"] == {"loop": "ClosedLoop", "clients": 1}
    assert "Interrupted:" in (tmp_path / "report.html").read_text()
    assert "the report:" in printed


def test_nothing_measured_is_an_error(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(FakeServer(lambda _: (404, b"no model"))) as fake:
        arguments = ["--url", fake.url, "--pictures", str(samples), "--out", str(tmp_path / "out")]
        with pytest.raises(CommandError, match="nothing could be measured"):
            main(arguments)
    assert "not measured: the running server:" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
