"""A client that times one request after the other on a kept connection, without an event loop."""

import http.client
import time
from types import TracebackType
from urllib.parse import urlsplit

from bench.loadgen.client import Request
from bench.loadgen.generator import TIMEOUT_S
from d2serve.errors import CommandError


class KeptConnection:
    """A connection to the URL of a server's predictions."""

    def __init__(self, url: str) -> None:
        self._url, parts = url, urlsplit(url)
        self._path = parts.path
        assert parts.hostname
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)

    def __enter__(self) -> "KeptConnection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def send(self, request: Request) -> float:
        """Send a request; the time in seconds until its response is complete.

        Raises:
            CommandError: the status is not 200.
        """
        start = time.perf_counter()
        self._connection.request("POST", self._path, request.body, dict(request.headers))
        with self._connection.getresponse() as response:
            body = response.read()
        taken = time.perf_counter() - start
        if response.status != http.client.OK:
            text = body[:200].decode(errors="replace")
            raise CommandError(f"{self._url}: {request.name} received {response.status}: {text}")
        return taken
