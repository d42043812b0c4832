"""The short form of `make soak`: all of its traffic, and a worker killed in the middle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.load.report.page import PAGE, RESULTS
from tests.environment import clean_environment

pytestmark = pytest.mark.serving

SHORT = ["--minutes", "1.5", "--kill-every", "45", "--clients", "8", "--hostile", "0.25"]
# How quick and how large all is, whatever else runs on the machine decides.
OF_THE_MACHINE = ("p99", "worst minute", "memory's growth")


def test_ninety_seconds_of_soak_show_no_fault(
    shapes_mar: Path, repo_root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bench.soak", "--model", str(shapes_mar), *SHORT]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=repo_root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / RESULTS).exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / RESULTS).read_text())
    rows = {row["name"]: row for row in found["criteria"]}
    assert done.returncode == int(not all(row["held"] for row in rows.values()))
    faults = [
        row for name, row in rows.items() if not row["held"] and not name.startswith(OF_THE_MACHINE)
    ]
    assert not faults, (faults, found["faults"])
    assert len(found["restarts"]) == 1
    outcomes = {row["name"]: row for row in found["outcomes"]}
    assert outcomes["right"]["good"] > 0
    assert outcomes["refused as it has to be"]["hostile"] > 0
    assert outcomes["left by its client"]["hostile"] > 0
    workers = {pid for sample in found["memory"] for pid in sample["resident"]["worker"]}
    assert len(workers) >= 2
    assert all(name in done.stdout for name in ("criterion", str(tmp_path / PAGE)))
