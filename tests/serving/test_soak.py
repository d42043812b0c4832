"""The short form of `make soak`: all of its traffic, and a worker killed in the middle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.environment import clean_environment

pytestmark = pytest.mark.serving

SHORT = ["--minutes", "1.5", "--kill-every", "45", "--clients", "8", "--hostile", "0.25"]
# Latency and memory depend on other programs on the machine.
OF_THE_MACHINE = ("p99", "worst minute", "memory growth")


@pytest.mark.parametrize("server", ["torchserve", "asgi"])
def test_ninety_seconds_of_soak_show_no_fault(
    shapes_mar: Path, repo_root: Path, tmp_path: Path, server: str
) -> None:
    command = [sys.executable, "-m", "bench", "soak", "--model", str(shapes_mar), *SHORT]
    done = subprocess.run(
        [*command, "--server", server, "--out", str(tmp_path)],
        cwd=repo_root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "soak.json").exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "soak.json").read_text())
    rows = {row["name"]: row for row in found["checks"]}
    assert done.returncode == int(not all(row["passed"] for row in rows.values()))
    failed = [row for row in rows.values() if not row["passed"]]
    faults = [row for row in failed if not row["name"].startswith(OF_THE_MACHINE)]
    assert not faults, (faults, found["faults"])
    assert len(found["restarts"]) == 1
    assert found["outcomes"]["right"]["good"] > 0
    assert found["outcomes"]["refused as required"]["hostile"] > 0
    assert found["outcomes"]["disconnected by the client"]["hostile"] > 0
    assert any(name.startswith("memory growth: worker") for name in rows)
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    assert all(text in done.stdout for text in ("| check ", str(tmp_path / "soak")))
