"""A client that times one request after the other on a kept connection, without an event loop."""

import socket
import time
from types import TracebackType
from urllib.parse import urlsplit

from bench.loadgen.client import Request, message_of
from bench.loadgen.connection import HEAD_END, parse_head
from bench.loadgen.generator import TIMEOUT_S
from d2serve.errors import CommandError

OK = 200
CHUNK_BYTES = 1 << 20


class KeptConnection:
    """A connection to the URL of a server's predictions, whose responses have a Content-Length."""

    def __init__(self, url: str) -> None:
        self._url, parts = url, urlsplit(url)
        address = parts.hostname or "", parts.port or 80
        self._socket = socket.create_connection(address, TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "KeptConnection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, request: Request) -> float:
        """Send a request; the time in seconds until its response is complete.

        Raises:
            CommandError: the status is not 200, or the connection ends before.
        """
        message = message_of(self._url, request, request.body, "keep-alive")
        start = time.perf_counter()
        self._socket.sendall(message)
        response = self._receive()
        taken = time.perf_counter() - start
        head, _, body = response.partition(HEAD_END)
        parsed = parse_head(head)
        if parsed is None or parsed.status != OK:
            text = body[:200].decode(errors="replace")
            status = parsed.status if parsed else "no response"
            raise CommandError(f"{self._url}: {request.name} received {status}: {text}")
        return taken

    def _receive(self) -> bytes:
        received, expected = b"", 0
        while not expected or len(received) < expected:
            chunk = self._socket.recv(CHUNK_BYTES)
            if not chunk:
                return b""
            received += chunk
            end = received.find(HEAD_END)
            if end >= 0 and not expected:
                head = parse_head(received[:end])
                length = head.fields.get("content-length", "0") if head else "0"
                expected = end + len(HEAD_END) + int(length)
        return received
