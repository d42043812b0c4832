"""A real server with faults on demand."""

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.served import worker_of
from tests.serving.traffic import npy_body, zeros

BATCH = 4
QUEUE = 6
CONNECTIONS = 30
RESPONSE_TIMEOUT_S = 4
TIMEOUT_S = 90

# The side of an image selects the fault; images of different sizes run in separate forward passes.
GOOD, FAULT, EXCEEDS_MEMORY, MAX_TWO_PER_BATCH, LOST_DEVICE, HELD = 64, 500, 507, 520, 540, 560
ONLY_TWO_FIT = "CUDA out of memory, only two fit"


def faulty_handler(gate: Path) -> str:
    """The code of a handler with these faults, whose wall clock jumps by years at every call."""
    return f"""
import itertools
import time
from pathlib import Path

import torch
from d2serve.servers.torchserve.handler import Detectron2Handler

GATE = Path({str(gate)!r})
FAULTS = {{
    {FAULT}: RuntimeError("zqx /opt/secret"),
    {EXCEEDS_MEMORY}: torch.OutOfMemoryError("CUDA out of memory zqx /opt/secret"),
    {LOST_DEVICE}: RuntimeError("CUDA error: device-side assert triggered"),
}}
JUMPS_S = itertools.cycle([0, 4e7, -4e7, 1])
true_time = time.time
time.time = lambda: true_time() + next(JUMPS_S)


class FaultyHandler(Detectron2Handler):
    def initialize(self, context):
        super().initialize(context)
        network = self.pipeline.detector.model
        forward = network.forward

        def fail(images, sizes_hw):
            sides = [height for height, _ in sizes_hw]
            for side in set(sides) & set(FAULTS):
                raise FAULTS[side]
            if {MAX_TWO_PER_BATCH} in sides and len(sides) > 2:
                raise torch.OutOfMemoryError("{ONLY_TWO_FIT}")
            if {HELD} in sides:
                (GATE / "begun").touch()
                while not (GATE / "open").exists():
                    time.sleep(0.01)
            return forward(images, sizes_hw)

        network.forward = fail
"""


@dataclass
class Faulty:
    """The server; through files in the folder `gate` a test holds and releases HELD images."""

    server: Server
    gate: Path
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))

    @property
    def url(self) -> str:
        return f"{self.server.url}/invocations"

    def send(self, side: int, headers: dict[str, str] | None = None) -> httpx.Response:
        """The response to an image of that side, over a separate connection."""
        body = npy_body(zeros(side))
        all_headers = {"Content-Type": body.content_type, **(headers or {})}
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
            return http.post(self.url, content=body.content, headers=all_headers)

    def submit(self, side: int, headers: dict[str, str] | None = None) -> "Future[httpx.Response]":
        """The future response to an image of that side."""
        return self.pool.submit(self.send, side, headers)

    def hold(self) -> "Future[httpx.Response]":
        """A request whose forward pass has begun and does not end before `release`."""
        for file in self.gate.iterdir():
            file.unlink()
        held = self.submit(HELD)
        wait_until(lambda: (self.gate / "begun").exists())
        return held

    def release(self) -> None:
        (self.gate / "open").touch()

    def wait_for_queue(self, length: int) -> None:
        wait_until(lambda: self._queue_length() == length)

    def _queue_length(self) -> int:
        url = f"{self.server.management_url}/models/{self.server.model_name}"
        [model] = httpx.get(url, trust_env=False).json()
        return int(model["jobQueueStatus"]["pendingRequests"])

    def is_healthy(self) -> bool:
        return httpx.get(f"{self.server.url}/ping", trust_env=False).is_success

    @property
    def worker(self) -> psutil.Process:
        return worker_of(self.server)

    @property
    def proxy(self) -> psutil.Process:
        """The process that owns the public port."""
        [port] = self.server.key_file.parent.glob("d2serve-*.port")
        return psutil.Process(int(port.read_text()))

    @property
    def torchserve(self) -> psutil.Process:
        """The Java process."""
        [child] = psutil.Process(self.server.process.pid).children()
        return child

    def connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server.ports.inference), TIMEOUT_S)


def is_open(ports: Ports) -> bool:
    """True if the public port accepts connections."""
    try:
        httpx.get(f"http://{LOOPBACK}:{ports.inference}/ping", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    polling = Retrying(
        stop=stop_after_delay(TIMEOUT_S),
        wait=wait_fixed(0.02),
        retry=retry_if_result(lambda met: not met),
    )
    polling(condition)


def error_code(response: httpx.Response) -> str:
    """The code of an error of the contract, which reveals no internals."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert error["message"]
    assert error["hint"]
    for internal in ("zqx", "secret", "Traceback", "CUDA", ".py", "Exception"):
        assert internal not in response.text
    code: str = error["code"]
    return code
