"""A real server with faults on demand, and what tests do to it."""

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
WITHIN_S = 90

# What a picture's side asks for; sides differ, so that each kind has micro-batches of its own.
GOOD, FAULT, NEVER_FITS, TWO_FIT, LOST_DEVICE, HELD = 64, 500, 507, 520, 540, 560
ONLY_TWO_FIT = "CUDA out of memory, only two fit"


def service(gate: Path) -> str:
    """A handler with these faults, whose wall clock jumps about by years at every look."""
    return f"""
import itertools
import time
from pathlib import Path

import torch
from handler.service import Detectron2Handler

GATE = Path({str(gate)!r})
FAULTS = {{
    {FAULT}: RuntimeError("zqx /opt/secret"),
    {NEVER_FITS}: torch.OutOfMemoryError("CUDA out of memory zqx /opt/secret"),
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
            if {TWO_FIT} in sides and len(sides) > 2:
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
    """The server; `gate` is a folder by which a test holds and frees HELD pictures."""

    server: Server
    gate: Path
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))

    @property
    def url(self) -> str:
        return f"{self.server.url}/invocations"

    def ask(self, side: int, headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer to a picture of that side, over a connection of its own."""
        body = npy_body(zeros(side))
        own = {"Content-Type": body.content_type, **(headers or {})}
        with httpx.Client(timeout=WITHIN_S, trust_env=False) as http:
            return http.post(self.url, content=body.content, headers=own)

    def ask_meanwhile(
        self, side: int, headers: dict[str, str] | None = None
    ) -> "Future[httpx.Response]":
        return self.pool.submit(self.ask, side, headers)

    def hold(self) -> "Future[httpx.Response]":
        """A request whose forward has begun and does not end before `let_go`."""
        for word in self.gate.iterdir():
            word.unlink()
        held = self.ask_meanwhile(HELD)
        wait_until(lambda: (self.gate / "begun").exists())
        return held

    def let_go(self) -> None:
        (self.gate / "open").touch()

    def wait_for_queue(self, waiting: int) -> None:
        wait_until(lambda: self._waiting() == waiting)

    def _waiting(self) -> int:
        url = f"{self.server.management_url}/models/{self.server.model_name}"
        [model] = httpx.get(url, trust_env=False).json()
        return int(model["jobQueueStatus"]["pendingRequests"])

    def is_healthy(self) -> bool:
        return httpx.get(f"{self.server.url}/ping", trust_env=False).is_success

    @property
    def worker(self) -> psutil.Process:
        return worker_of(self.server)

    @property
    def relay(self) -> psutil.Process:
        """The process that has the public port."""
        [port] = self.server.key_file.parent.glob("d2serve-*.port")
        return psutil.Process(int(port.read_text()))

    @property
    def torchserve(self) -> psutil.Process:
        """The Java process."""
        [child] = psutil.Process(self.server.process.pid).children()
        return child

    def connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server.ports.inference), WITHIN_S)


def is_open(ports: Ports) -> bool:
    """Whether anybody listens at the public port."""
    try:
        httpx.get(f"http://{LOOPBACK}:{ports.inference}/ping", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    polling = Retrying(
        stop=stop_after_delay(WITHIN_S),
        wait=wait_fixed(0.02),
        retry=retry_if_result(lambda met: not met),
    )
    polling(condition)


def error_code(response: httpx.Response) -> str:
    """The code of an error in the contract's form, which says nothing of the inside."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert error["message"]
    assert error["hint"]
    for inside in ("zqx", "secret", "Traceback", "CUDA", ".py", "Exception"):
        assert inside not in response.text
    code: str = error["code"]
    return code
