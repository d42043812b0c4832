"""Clients of a running server, each of which sends its next request when it has its answer."""

import http.client
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

JPEG = "image/jpeg"
TIMEOUT_S = 300


def send_all(
    url: str, bodies: Iterable[bytes], clients: int, after_each: Callable[[], object] = lambda: None
) -> list[float]:
    """Sends every JPEG once, by `clients` threads with a connection each.

    The standard library's client, because it takes the least time of those that are at hand, and
    shares the machine with the server.

    Returns:
        Seconds from request to answer, in the order of the answers.

    Raises:
        RuntimeError: a request was refused.
    """
    turns, lock = iter(bodies), threading.Lock()
    seconds: list[float] = []

    def take() -> bytes | None:
        with lock:
            return next(turns, None)

    def serve_turns() -> None:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_S)
        try:
            while (body := take()) is not None:
                start = time.perf_counter()
                _send(connection, address.path, body)
                elapsed = time.perf_counter() - start
                with lock:
                    seconds.append(elapsed)
                    after_each()
        finally:
            connection.close()

    with ThreadPoolExecutor(clients) as pool:
        for turn in [pool.submit(serve_turns) for _ in range(clients)]:
            turn.result()
    return seconds


def for_seconds(
    bodies: Iterable[bytes], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[bytes]:
    """These bodies until the time, from the first one on, is over."""
    end: float | None = None
    for body in bodies:
        now = clock()
        end = now + seconds if end is None else end
        if now >= end:
            return
        yield body


def _send(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", path, body, {"Content-Type": JPEG})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.client.OK:
        raise RuntimeError(f"a request got {response.status}: {content[:500]!r}")
