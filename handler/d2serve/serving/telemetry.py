"""Reports of requests and batches, stage times and memory."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from d2serve.detector.base import Forward


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def elapsed_ms(self) -> float:
        """Milliseconds so far."""
        return (time.perf_counter() - self._started) * 1000.0


@dataclass(frozen=True)
class StageTimes:
    """Stage times of one request in milliseconds.

    `batch` is the number of pictures that went through the network together with this request's,
    0 where none got that far.
    """

    decode_ms: float
    forward_ms: float = 0.0
    encode_ms: float = 0.0
    batch: int = 0

    def server_timing(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing)."""
        stages = {"decode": self.decode_ms, "forward": self.forward_ms, "encode": self.encode_ms}
        metrics = [f"{name};dur={elapsed_ms:.2f}" for name, elapsed_ms in stages.items()]
        return ", ".join([*metrics, f'batch;desc="{self.batch}"'])


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


OK = "ok"


@dataclass(frozen=True)
class Received:
    """A request before it is read.

    Attributes:
        request_id: the server's name for it.
        media_type: its Content-Type without parameters where that is a supported one, `none`
            where it has none, else `other`: what a client may write there stays out of logs.
        size: bytes of its body.
    """

    request_id: str
    media_type: str
    size: int


@dataclass(frozen=True)
class PictureReport:
    """One picture of a request.

    Attributes:
        width, height: in pixels; 0 where it could not be decoded.
        code: OK, or that of its error.
        instances: how many the network found, before the request's own options choose among them.
    """

    width: int = 0
    height: int = 0
    code: str = OK
    instances: int = 0


@dataclass(frozen=True)
class RequestReport:
    """One request and its response.

    Attributes:
        received: the request.
        status: HTTP status.
        code: OK, or the error's.
        message: the error's; empty without one.
        media_type: of the response.
        size: bytes of the response's body.
        pictures: in the order sent; none where the request could not be read.
        options: those that differ from the archive's defaults; as they were understood.
        times: of its stages.
    """

    received: Received
    status: int
    code: str
    message: str
    media_type: str
    size: int
    pictures: tuple[PictureReport, ...]
    options: Mapping[str, Any]
    times: StageTimes


@dataclass(frozen=True)
class BatchReport:
    """The requests that the server handed over together, and their forwards.

    `elapsed_ms` is the time from the batch's arrival until all its answers were ready, in
    milliseconds.
    """

    requests: tuple[RequestReport, ...]
    forwards: tuple[Forward, ...]
    elapsed_ms: float


@dataclass(frozen=True)
class HttpResponse:
    """Status, headers and body; `content_type` apart from the other headers.

    `report` tells the operator of the request; None where there was none to be made.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    report: RequestReport | None = None
