"""The entry point of an archive, loaded by TorchServe's own model loader."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import d2serve
from d2serve.servers.torchserve import archive_handler

# TorchServe may put the archive's folder on sys.path after the installed packages.
LOAD = """
import sys
from ts.model_loader import TsModelLoader

sys.path.append(sys.argv[1])
service = TsModelLoader().load("shapes", sys.argv[1], "handler.py")
print(type(service._entry_point.__self__).__name__)
"""
ALTERED = """

class Detectron2Handler(Detectron2Handler):
    def initialize(self, context):
        print("altered", __file__)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The code of an unpacked archive."""
    package = Path(d2serve.__file__).parent
    shutil.copytree(package, tmp_path / "d2serve", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(inspect.getfile(archive_handler), tmp_path / "handler.py")
    return tmp_path


def test_the_archives_own_copy_of_d2serve_is_used(archive: Path) -> None:
    """Even though another d2serve is installed here."""
    handler = archive / "d2serve/servers/torchserve/handler.py"
    handler.write_text(handler.read_text() + ALTERED)
    completed = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines() == [f"altered {handler}", "Handler"]
