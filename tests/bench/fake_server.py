"""A server that responds as a test wants, without a model."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

import pytest

Patch: TypeAlias = pytest.MonkeyPatch
Capture: TypeAlias = pytest.CaptureFixture[str]
GOOD = b'{"labels": []}'


@dataclass
class FakeServer:
    """Responses by number of the request, from 0, and what was received; more than `most` requests
    at once get a 503."""

    respond: Callable[[int], tuple[int, bytes]] = lambda _: (200, GOOD)
    lag_s: float = 0.0
    declared_extra: int = 0
    echo: bool = False
    surplus: bytes = b""
    closes: bool = False
    chunk: int = 0
    most: int = 1000
    url: str = ""
    bodies: Counter[bytes] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of `size` bytes and an empty one."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


@contextmanager
def running(fake: FakeServer) -> Iterator[FakeServer]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def setup(self) -> None:
            super().setup()
            fake.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(fake.headers)
                fake.bodies[body] += 1
                fake.headers.append({k.title(): v for k, v in self.headers.items()})
                accepted = fake.at_once < fake.most
                fake.at_once += accepted
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            status, response = fake.respond(number) if accepted else (503, b"{}")
            if accepted:
                time.sleep(fake.lag_s)
                with lock:
                    fake.at_once -= 1
            response = body if fake.echo else response
            self.send_response(status)
            if fake.chunk:
                self.send_header("Transfer-Encoding", "chunked")
                response = chunked(response, fake.chunk)
                response = response[: len(response) - fake.declared_extra]
            else:
                self.send_header("Content-Length", str(len(response) + fake.declared_extra))
            self.send_header("x-request-id", str(number))
            if fake.closes:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(response)
            time.sleep(0.05 if fake.surplus else 0)
            self.wfile.write(fake.surplus)
            self.close_connection |= bool(fake.declared_extra)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 128

        def handle_error(self, *_: object) -> None:
            """A client that disconnects is not an error."""

    with Server(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as pool:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}/predictions/model"
        pool.submit(server.serve_forever, poll_interval=0.05)
        try:
            yield fake
        finally:
            server.shutdown()
