"""A proxy server in this process, in front of a fake TorchServe."""

import asyncio
import json
import socket
import socketserver
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.events import SUFFIX
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.server import ProxyServer
from d2serve.servers.torchserve.proxy.shared_files import FileLock, RuntimeFolder
from tests.polling import wait_until

TIMEOUT_S = 60
LONG_TIMEOUTS = Limits(request_head_s=600, request_body_s=600, keep_alive_s=600)


@dataclass(frozen=True)
class Received:
    """A request as TorchServe receives it; field names in lower case."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    chunks: int


@dataclass
class Reply:
    """A response of TorchServe."""

    status: str = "200 OK"
    body: bytes = b"good"
    fields: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        fields = {"content-length": str(len(self.body)), **self.fields}
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {text}" for name, text in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class FakeTorchServe(socketserver.ThreadingTCPServer):
    """Responds with `reply` to every request once `release` is set.

    Attributes:
        connections: number of connections so far.
        closed: number of those that are closed.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.reply = Reply()
        self.raw_reply: bytes | None = None
        self.release = Event()
        self.release.set()
        self.received: list[Received] = []
        self.connections = self.closed = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection."""
        self.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection, and count it."""
        super().shutdown_request(request)
        self.closed += 1


class _Handler(socketserver.StreamRequestHandler):
    server: FakeTorchServe

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, target, _ = line.decode("ascii").split()
            fields = self._fields()
            try:
                body, chunks = self._body(fields)
            except ValueError:  # the proxy has closed the connection
                return
            self.server.received.append(Received(method, target, fields, body, chunks))
            self.server.release.wait(TIMEOUT_S)
            if self.server.raw_reply is not None:
                self.wfile.write(self.server.raw_reply)
                return
            self.wfile.write(self.server.reply.encode())

    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        while (line := self.rfile.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            assert name not in fields, f"{name} occurs twice"
            fields[name] = value.strip()
        return fields

    def _body(self, fields: dict[str, str]) -> tuple[bytes, int]:
        if "transfer-encoding" not in fields:
            return self.rfile.read(int(fields.get("content-length", 0))), 0
        chunks: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            assert self.rfile.read(2) == b"\r\n"
        assert self.rfile.readline() == b"\r\n"
        return b"".join(chunks), len(chunks)


@dataclass(frozen=True)
class RunningProxy:
    """The proxy, its fake TorchServe, and what it reports."""

    port: int
    upstream: FakeTorchServe
    server: ProxyServer
    folder: RuntimeFolder
    worker: FileLock
    loop: asyncio.AbstractEventLoop
    events_socket: socket.socket

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.port), TIMEOUT_S)
        client.sendall(sent)
        return client

    def send(self, sent: bytes) -> bytes:
        """All bytes that the proxy sends until it closes the connection."""
        with self.connect(sent) as client:
            return receive_all(client)

    def transferred_bytes(self) -> int:
        """Number of bytes received from and delivered to the clients that are connected."""
        connected = [each._client for each in list(self.server._connections)]
        return sum(each.transferred_bytes for each in connected if each)

    def wait_until_transferred(self, count: int) -> None:
        """Return when at least as many bytes are transferred."""
        wait_until(lambda: self.transferred_bytes() >= count)

    def events(self) -> list[dict[str, Any]]:
        """The reports since the last call."""
        events = []
        with suppress(BlockingIOError):
            while True:
                events.append(json.loads(self.events_socket.recv(4096)))
        return events

    def stop(self) -> None:
        """Stop, unless it has stopped: its event loop closes before its thread ends."""
        if not self.loop.is_closed():
            with suppress(RuntimeError):  # closed since
                self.loop.call_soon_threadsafe(self.server.stop)


@contextmanager
def running_proxy(
    limits: Limits = LONG_TIMEOUTS, models: tuple[tuple[str, str], ...] = (("shapes", "1.0"),)
) -> Iterator[RunningProxy]:
    with (
        tempfile.TemporaryDirectory(prefix="d2serve-test-") as temporary,
        FakeTorchServe() as upstream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as events,
    ):
        Thread(target=upstream.serve_forever, daemon=True, args=(0.05,)).start()
        folder = RuntimeFolder(Path(temporary, "run"))
        events.setblocking(False)
        events.bind(str(folder.path / f"1{SUFFIX}"))
        # Locks of one process in two file descriptions exclude each other like those of two.
        workers = [folder.ready_lock(*model) for model in models]
        for worker in workers:
            worker.acquire_shared()
        opened, port = Event(), Ports.free().inference
        running: dict[str, Any] = {}

        async def serve() -> None:
            running["loop"] = asyncio.get_running_loop()
            running["server"] = ProxyServer(upstream.server_address, folder, limits)  # type: ignore[arg-type]
            await running["server"].serve((LOOPBACK, port), opened.set)

        thread = Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert opened.wait(TIMEOUT_S)
        wait_until(lambda: upstream.connections)  # the proxy's own
        proxy = RunningProxy(
            port, upstream, running["server"], folder, workers[0], running["loop"], events
        )
        try:
            yield proxy
        finally:
            upstream.release.set()
            if thread.is_alive():
                proxy.stop()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
            upstream.shutdown()


def receive_all(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    with client.makefile("rb") as response:
        return response.read()


def post(body: bytes = b"hello", *fields: str, path: str = "/invocations") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: a", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


CLOSE = "Connection: close"
