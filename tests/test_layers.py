"""The layers of d2serve, as import-linter's contracts in pyproject.toml, are enforced."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def package(repo_root: Path, tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    copy = tmp_path / "d2serve"
    unwanted = shutil.ignore_patterns("__pycache__", "*.json")
    shutil.copytree(repo_root / "handler" / "d2serve", copy, ignore=unwanted)
    return copy


def test_the_layers_are_kept(repo_root: Path) -> None:
    result = lint_imports(repo_root, repo_root / "handler")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("model/nms.py", "import d2serve.serving.pipeline", "Layers"),
        ("masks/rle.py", "from d2serve.model import nms", "Layers"),
        ("inputs/body.py", "from d2serve.outputs import accept", "Layers"),
        ("serving/pipeline.py", "from d2serve.building import archive", "Layers"),
        ("building/archive.py", "from d2serve.servers.torchserve import handler", "Layers"),
        ("detector/base.py", "def f():\n    import d2serve.servers.torchserve", "Layers"),
        ("serving/pipeline.py", "import ts", "Only servers.torchserve imports ts"),
        ("api.py", "import boto3", "The serving core and the network know neither AWS"),
    ],
)
def test_a_forbidden_import_is_found(
    repo_root: Path, package: Path, module: str, statement: str, contract: str
) -> None:
    with (package / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    result = lint_imports(repo_root, package.parent)
    assert result.returncode == 1
    [broken] = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert broken.startswith(contract)


def test_a_module_without_a_layer_is_found(repo_root: Path, package: Path) -> None:
    (package / "newcomer.py").write_text('"""A module."""\n', encoding="utf-8")
    result = lint_imports(repo_root, package.parent)
    assert result.returncode == 1
    assert "newcomer" in result.stdout + result.stderr


def lint_imports(repo_root: Path, source_root: Path) -> "subprocess.CompletedProcess[str]":
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [
        *(sys.executable, "-c", lint),
        *("--config", str(repo_root / "pyproject.toml"), "--no-cache"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(source_root), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=source_root, env=environment, capture_output=True, text=True, check=False
    )
