"""How much memory a worker takes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

# Linux; its second number is the resident pages.
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        resident: the process' resident set; None where the system does not tell.
        device: of a GPU, `allocated` by this worker's tensors, `reserved` by its allocator, and
            `free` for all processes; empty on the CPU.
    """

    resident: int | None = None
    device: Mapping[str, int] = field(default_factory=dict)


def read_memory(device: torch.device) -> Memory:
    """What this process takes now, on the host and on its device."""
    return Memory(_resident(), _on_device(device))


def _resident() -> int | None:
    if not STATM.exists():
        return None
    pages = int(STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _on_device(device: torch.device) -> dict[str, int]:
    if device.type != "cuda":
        return {}
    free, _ = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "free": free,
    }
