"""Signals and errors end a command."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from d2serve.cli.run import run
from d2serve.errors import CommandError

PROGRAM = """
import time
from d2serve.cli.run import run

def main():
    try:
        print("serving", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("ended", flush=True)

run(main)
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_second_signal_does_not_cut_the_cleanup_short(
    repo_root: Path, stop: signal.Signals
) -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=repo_root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        process.send_signal(stop)
        time.sleep(0.2)
        process.send_signal(stop)
        assert process.communicate(timeout=60)[0] == "ended\n"
    assert process.returncode == 130


@pytest.fixture(autouse=True)
def keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_exit_code_is_that_of_the_command() -> None:
    with pytest.raises(SystemExit) as end:
        run(lambda: 3)
    assert end.value.code == 3


def test_expected_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise CommandError("a.mar does not exist")

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: a.mar does not exist\n"


def test_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(lambda: len((tmp_path / "absent").read_bytes()))
    assert end.value.code == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: No such file or directory\n"


def test_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_interrupt_exits_with_130() -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 130
