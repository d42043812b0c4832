"""Run a program with the packages of labelling tools, which have an environment of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.environment import clean_environment

ENVIRONMENT = ".venv-labelling"
TIMEOUT_S = 300


def run_program(
    repo_root: Path, program: Path, *arguments: object, environment: str = ENVIRONMENT
) -> Any:
    """Run a program and return the JSON that it prints; it may import d2serve without torch."""
    done = subprocess.run(
        [require_python(repo_root, environment), program, *map(str, arguments)],
        env={
            **clean_environment(),
            "PYTHONPATH": os.pathsep.join(map(str, (repo_root, repo_root / "handler"))),
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def run_with_masks(
    repo_root: Path, program: Path, *arguments: object, file: Path, environment: str
) -> dict[str, Any]:
    """Run a program that writes arrays to `file`; returns its output with them in `masks`."""
    printed: dict[str, Any] = run_program(
        repo_root, program, *arguments, file, environment=environment
    )
    with np.load(file) as content:
        return printed | {"masks": dict(content)}


def require_python(repo_root: Path, environment: str = ENVIRONMENT) -> Path:
    """The environment's Python; the test fails where it is missing."""
    python = repo_root / environment / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{environment} is missing; run `make environments`")
    return python
