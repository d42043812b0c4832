"""Real servers with faults on demand."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from d2serve.servers.torchserve.launcher.ports import LOOPBACK
from d2serve.servers.torchserve.launcher.processes import living_members
from d2serve.servers.torchserve.launcher.server import MODEL, REQUESTS, Server, ServerLogs
from tests import polling
from tests.serving.asgi_server import AsgiServer
from tests.serving.faults.injection import HELD
from tests.serving.served import Served, connections_of, worker_of
from tests.serving.traffic import npy_body, zeros

BATCH = 4
# Requests that wait while a batch runs.
QUEUE = 6
CONNECTIONS = 30
# The time after which a forward pass counts as hung; tests hold one for a part of it.
FORWARD_TIMEOUT_S = 10
TIMEOUT_S = 90


@dataclass
class Faulty(ABC):
    """A server; through files in the folder `gate` a test holds and releases HELD images."""

    gate: Path
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64), kw_only=True)

    @property
    @abstractmethod
    def served(self) -> Served:
        """The server."""

    @abstractmethod
    def wait_for_queue(self, length: int) -> None:
        """Return when `length` requests wait behind the running batch."""

    @property
    @abstractmethod
    def logging_process(self) -> psutil.Process:
        """The process that writes `main_log`."""

    @property
    @abstractmethod
    def main_log(self) -> str:
        """A log that grows with each request."""

    @property
    def url(self) -> str:
        return f"{self.served.url}/invocations"

    @property
    def logs(self) -> ServerLogs:
        return self.served.logs

    @property
    def request_log(self) -> str:
        """The text of the logs that have a line for each request."""
        return self.logs.text(MODEL) + self.logs.text(REQUESTS)

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
        for name in ("begun", "open"):
            (self.gate / name).unlink(missing_ok=True)
        held = self.submit(HELD)
        wait_until(lambda: (self.gate / "begun").exists())
        return held

    def release(self) -> None:
        (self.gate / "open").touch()

    def is_healthy(self) -> bool:
        try:
            return get(f"{self.served.url}/ping").is_success
        except httpx.TransportError:
            return False

    @property
    def worker(self) -> psutil.Process:
        """The process that runs the model."""
        return worker_of(self.served)

    def connect(self) -> socket.socket:
        address = urlsplit(self.served.url)
        return socket.create_connection((LOOPBACK, address.port or 80), TIMEOUT_S)


@dataclass
class FaultyTorchServe(Faulty):
    """TorchServe behind its proxy."""

    server: Server

    @property
    def served(self) -> Server:
        return self.server

    @property
    def logging_process(self) -> psutil.Process:
        return self.torchserve

    @property
    def main_log(self) -> str:
        return self.logs.text("access_log.log")

    def wait_for_queue(self, length: int) -> None:
        wait_until(lambda: self._queue_length() == length)

    def _queue_length(self) -> int:
        url = f"{self.server.management_url}/models/{self.server.model_name}"
        [model] = get(url).json()
        return int(model["jobQueueStatus"]["pendingRequests"])

    @property
    def proxy(self) -> psutil.Process:
        """The process that owns the public port."""
        [owner] = [
            process
            for process in living_members(self.server.process.pid)
            if any(
                connection.laddr.port == self.server.ports.inference
                for connection in connections_of(process)
                if connection.status == psutil.CONN_LISTEN
            )
        ]
        return owner

    @property
    def torchserve(self) -> psutil.Process:
        """The Java process."""
        [child] = psutil.Process(self.server.process.pid).children()
        return child


@dataclass
class FaultyAsgi(Faulty):
    """The ASGI server."""

    server: AsgiServer

    @property
    def served(self) -> AsgiServer:
        return self.server

    @property
    def logging_process(self) -> psutil.Process:
        return self.worker

    @property
    def main_log(self) -> str:
        return self.logs.text(MODEL)

    def wait_for_queue(self, length: int) -> None:
        """The held image counts as queued as well."""
        wait_until(lambda: int((self.gate / "queued").read_text()) == length + 1)


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=TIMEOUT_S, trust_env=False)


def is_open(url: str) -> bool:
    """True if the server at the URL accepts connections."""
    try:
        get(f"{url}/ping")
    except httpx.TransportError:
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    polling.wait_until(condition, TIMEOUT_S, every_s=0.02)


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
