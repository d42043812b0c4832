"""How commands end when they are told to stop."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import time
from scripts.errors import run

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
def test_a_command_told_to_stop_twice_ends_what_it_has_started(
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
