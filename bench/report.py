"""Reports: one JSON file, one printed Markdown page and one PNG per run, with the machine and the
versions that figures depend on; and progress on stderr."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.plots import Panel, draw
from d2serve.servers.openmp import OPENMP_SETTINGS
from d2serve.serving.cpu import available_cpus

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "opencv-python-headless", "detectron2")
CPU_INFO = Path("/proc/cpuinfo")
REPOSITORY = Path(__file__).resolve().parents[1]


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Describe this machine in JSON types; the load average is the current one."""
    on_gpu = device is not None and device.type == "cuda"
    versions = {each.name.lower(): each.version for each in distributions()}
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": _cpu_model(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "openmp": {name: os.environ[name] for name in OPENMP_SETTINGS if name in os.environ},
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: versions.get(name) for name in PACKAGES},
        "commit": _commit(),
    }


def summary(machine: dict[str, Any]) -> str:
    """Describe a machine in one line."""
    versions = machine["versions"]
    loads = " ".join(f"{load:.1f}" for load in machine["load_average"])
    gpu = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load {loads}; Python {machine['python']}, torch {versions['torch']}, "
        f"torchvision {versions['torchvision']}, commit {machine['commit'] or 'unknown'}"
    )


def _cpu_model() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit() -> str:
    """The checkout's commit, with a + where files differ from it; empty without git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Table(NamedTuple):
    """Texts in rows below `columns`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> list[str]:
        """Aligned, so that it reads well as plain text."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = (
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in (self.columns, ["-" * width for width in widths], *self.rows)
        )
        return [f"{self.title}:", "", *(f"| {line} |" for line in lines), ""]


def write_report(
    path: Path,
    tables: Sequence[Table],
    data: Mapping[str, Any],
    panels: Sequence[Panel] = (),
    notes: Sequence[str] = (),
    machine: dict[str, Any] | None = None,
) -> None:
    """Print a run, and write it as `path` with the suffixes .json, .md and .png.

    `data` are all measured values, as JSON types; `machine` is described now by default. The PNG
    is written only if `panels` is not empty and matplotlib is installed.
    """
    machine = machine or describe_machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    page = [summary(machine), "", *(line for table in tables for line in table.markdown())]
    text = "\n".join([*page, *(f"- {note}" for note in notes)]) + "\n"
    content = json.dumps({"machine": machine, **data}, indent=1)
    path.with_suffix(".json").write_text(content + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    drawn = bool(panels) and find_spec("matplotlib") is not None
    if drawn:
        draw(panels, summary(machine), path.with_suffix(".png"))
    progress("")
    plot = ", .png" if drawn else "; no plot: matplotlib is not installed" if panels else ""
    print(f"{text}\nthe report: {path}.json, .md{plot}")


def progress(text: str) -> None:
    """Show the current step on stderr: in place on a terminal, else as a line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
