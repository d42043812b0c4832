"""Reports of requests for metrics and logs: stage times, sizes and memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# The code of a request or image without an error.
OK = "ok"
# Linux; the second number is the count of resident pages.
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class StageTimes:
    """Duration of each stage of one request in milliseconds.

    Attributes:
        decode_ms: parsing, decoding and preprocessing; the sum over all images.
        queue_ms: waiting before decoding and for the network; of the image that waited longest.
        forward_ms: the forward pass; of the image whose pass took longest.
        encode_ms: encoding the response.
        batch: number of images in the request's largest forward pass; 0 if it had none.

    Examples:
        >>> StageTimes(decode_ms=1.5, forward_ms=20.0, encode_ms=2.0, batch=8).server_timing()
        'decode;dur=1.50, queue;dur=0.00, forward;dur=20.00, encode;dur=2.00, batch;desc="8"'
    """

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    forward_ms: float = 0.0
    encode_ms: float = 0.0
    batch: int = 0

    def server_timing(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing)."""
        stages = [f"{name};dur={elapsed_ms:.2f}" for name, elapsed_ms in self.stages().items()]
        return ", ".join([*stages, f'batch;desc="{self.batch}"'])

    def stages(self) -> dict[str, float]:
        """Duration of each stage in milliseconds, in the order of the stages."""
        return {
            "decode": self.decode_ms,
            "queue": self.queue_ms,
            "forward": self.forward_ms,
            "encode": self.encode_ms,
        }


@dataclass(frozen=True)
class Received:
    """Metadata of a received request.

    Attributes:
        request_id: the server's identifier.
        media_type: its Content-Type without parameters if that is supported, `none` if it has
            none, else `other`: the log never repeats a client's own text.
        size: size of its body in bytes.
    """

    request_id: str
    media_type: str
    size: int


@dataclass(frozen=True)
class ImageReport:
    """One image of a request.

    Attributes:
        width, height: in pixels; 0 if it could not be decoded.
        code: OK, or the error's.
        instances: number of the network's detections, before the request's options filter them.
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
        status: the HTTP status.
        code: OK, or the error's.
        message: the error's; empty without an error.
        media_type: media type of the response.
        size: size of the response's body in bytes.
        images: in the order sent; empty if the request could not be read.
        options: the options that differ from the archive's defaults, after parsing.
        times: of its stages.
        elapsed_ms: time from its arrival to its response in milliseconds.
    """

    received: Received
    status: int
    code: str
    message: str
    media_type: str
    size: int
    images: tuple[ImageReport, ...]
    options: Mapping[str, Any]
    times: StageTimes
    elapsed_ms: float


@dataclass(frozen=True)
class Memory:
    """Memory use of a process in bytes.

    Attributes:
        resident: the resident set; None if the system does not report it.
        device: of a GPU: `allocated` by this worker's tensors, `reserved` by its allocator, and
            `free` for all processes; empty on the CPU.
    """

    resident: int | None = None
    device: Mapping[str, int] = field(default_factory=dict)


def read_memory(device: torch.device) -> Memory:
    """Read this process's memory use on the host and on its device."""
    return Memory(_resident_bytes(), _device_bytes(device))


def _resident_bytes() -> int | None:
    if not STATM.exists():
        return None
    pages = int(STATM.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _device_bytes(device: torch.device) -> dict[str, int]:
    if device.type != "cuda":
        return {}
    free, _ = torch.cuda.mem_get_info(device)
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "free": free,
    }
