"""What timings depend on beside the code: the machine, the versions, what else it does."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scripts.waiting_threads import WAITING_THREADS

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "detectron2",
)
CPU_FACTS = Path("/proc/cpuinfo")
REPOSITORY = Path(__file__).resolve().parents[1]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """All of it as JSON's types; the load average is that of now."""
    return {
        "device": device_name(device),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waiting_threads": {
            name: os.environ[name] for name in WAITING_THREADS if name in os.environ
        },
        "load_average": load_average(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
    }


def device_name(device: torch.device) -> str:
    """Of a GPU its own, else `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cpu_model() -> str:
    """As Linux calls it; other systems say less."""
    if CPU_FACTS.is_file():
        for line in CPU_FACTS.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def load_average() -> list[float]:
    """Processes that ran or wanted to, over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def commit() -> str:
    """The checkout's, with a + where files differ from it; empty without git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def summary(machine: dict[str, Any]) -> str:
    """The line above a table."""
    versions = machine["versions"]
    loads = " ".join(f"{load:.1f}" for load in machine["load_average"])
    on_gpu = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    return (
        f"{on_gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load {loads}; Python {machine['python']}, torch {versions['torch']}, "
        f"torchvision {versions['torchvision']}, commit {machine['commit'] or 'unknown'}"
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
