"""Code blocks of documentation pages, and servers that their commands start."""

import os
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import shell
from tests.environment import clean_environment

READY_WITHIN_S = 300
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
    return shell.run(command, folder, environment())


def running(command: str, folder: Path, health_url: str) -> AbstractContextManager[None]:
    """Run a server until the end of the block, which begins when its health check succeeds."""
    is_ready = partial(shell.is_healthy, health_url)
    return shell.running(f"exec {command}", folder, environment(), is_ready, READY_WITHIN_S)
