"""Machine, versions and load that timings depend on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from d2serve.servers.torchserve.launcher.config import WAITING_THREADS

PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "opencv-python-headless"),
    *("pycocotools", "detectron2"),
)
CPU_INFO = Path("/proc/cpuinfo")
REPOSITORY = Path(__file__).resolve().parents[1]


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Describe this machine in JSON types; the load average is the current one."""
    on_gpu = device is not None and device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waiting_threads": {
            name: os.environ[name] for name in WAITING_THREADS if name in os.environ
        },
        "load_average": load_average(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def load_average() -> list[float]:
    """Runnable processes over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


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
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The checkout's commit, with a + where files differ from it; empty without git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
