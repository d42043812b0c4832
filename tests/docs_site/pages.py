"""Code blocks of documentation pages, and servers that their commands start."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.environment import clean_environment

READY_WITHIN_S = 60
BLOCK = re.compile(r"^ *```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block: its language, the file that it is saved as (or ""), and its text."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines; a line that ends with a backslash continues on the next one."""
        return re.sub(r"\\\n *", "", self.text).splitlines()


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page with a language, in order."""
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def environment() -> dict[str, str]:
    """The environment of a shell in which the tests' Python is activated."""
    folder = Path(sys.executable).parent
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return clean_environment() | {"PATH": path, "OMP_WAIT_POLICY": "PASSIVE"}


def run(command: str, folder: Path) -> str:
    """Run a command of a shell, and return what it printed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@contextmanager
def running(command: str, folder: Path, health_url: str) -> Iterator[None]:
    """Run a server until the end of the block, which begins when its health check succeeds."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not _is_healthy(health_url):
            assert process.poll() is None, f"{command}\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, f"{command}: not ready"
            time.sleep(0.1)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
