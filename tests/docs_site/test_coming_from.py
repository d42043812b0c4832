"""Runs the examples of docs/coming-from.md titled "After", and compiles those titled "Before"."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.docs_site.pages import Block, blocks_of, run, running
from tests.serving.clients.conversation import require_python

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from.md"
BLOCKS = blocks_of(PAGE)
PROGRAMS = [block for block in BLOCKS if (block.language, block.title) == ("python", "After")]
COMMANDS = [block for block in BLOCKS if (block.language, block.title) == ("sh", "After")]
# Part of a program -> what it prints.
PRINTED = {
    "d2serve.load": r"\[\[.+\]\] \(\d+, 480, 640\)",
    '"score": score': r"\[\{'circle': \[.*\], 'score': 0\.\d+\}.*\]|\[\{'\w+': \[",
    "tritonclient": r"\(\d+, 4\) \[0\.9",
    '"format": "roboflow"': r"^\w+ [01]\.\d+ \d+\.\d+ \d+\.\d+ \d+$",
}


@pytest.fixture(scope="module")
def folder(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled model and with what the page's commands have written."""
    folder = tmp_path_factory.mktemp("coming-from")
    shutil.copytree(repo_root / "models" / "shapes", folder / "models" / "shapes")
    for block in COMMANDS:
        for command in block.commands:
            run(command, folder)
    return folder


@pytest.fixture(scope="module")
def ports(folder: Path) -> Iterator[dict[str, str]]:
    """A server's documented addresses -> its actual ones."""
    free = Ports.free()
    http, grpc = f"{LOOPBACK}:{free.inference}", f"{LOOPBACK}:{free.management}"
    [command] = re.findall(r"^    (d2serve serve .*)$", PAGE.read_text(), re.MULTILINE)
    command = f"{command.replace('8001', str(free.management))} --port {free.inference}"
    with running(command, folder, f"http://{http}/ping"):
        yield {f"{LOOPBACK}:8080": http, f"{LOOPBACK}:8001": grpc}


@pytest.mark.parametrize("part", PRINTED)
def test_program_works(repo_root: Path, folder: Path, ports: dict[str, str], part: str) -> None:
    [program] = [block.text for block in PROGRAMS if part in block.text]
    for documented, actual in ports.items():
        program = program.replace(documented, actual)
    (folder / "program.py").write_text(program)
    python = require_python(repo_root) if part == "tritonclient" else sys.executable
    assert re.search(PRINTED[part], run(f"{python} program.py", folder), re.DOTALL | re.MULTILINE)


def test_every_program_is_run() -> None:
    assert len(PROGRAMS) == len(PRINTED)


def test_commands_write_the_archive_and_the_package(folder: Path) -> None:
    written = {path.name for path in (folder / "model-store").iterdir()}
    assert written == {"shapes.mar", "shapes.tar.gz"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.language)
def test_every_block_is_run_or_shown_as_the_code_before(block: Block) -> None:
    assert block.title in {"Before", "After"}
    if block.language == "python":
        compile(block.text, block.title, "exec")
