"""Commands of a shell, and servers that they start."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

POLL_S = 0.1


def run(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command, and return what it printed."""
    process = start(command, folder, environment)
    output, _ = process.communicate()
    assert process.returncode == 0, f"{command}\n{output}"
    return output


@contextmanager
def running(
    command: str,
    folder: Path,
    environment: Mapping[str, str],
    is_ready: Callable[[], bool],
    within_s: float,
) -> Iterator[None]:
    """Run a server until the end of the block, which begins when the server is ready."""
    process = start(command, folder, environment)
    try:
        deadline = time.monotonic() + within_s
        while not is_ready():
            assert process.poll() is None, f"{command}\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, f"{command}: not ready"
            time.sleep(POLL_S)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def start(command: str, folder: Path, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def is_healthy(url: str) -> bool:
    """Return whether a GET request succeeds."""
    try:
        return httpx.get(url, timeout=60, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
