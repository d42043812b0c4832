"""Clients of a server that counts."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.clients import for_seconds, send_all


@contextmanager
def counting_server(refused: bytes = b"bad") -> Iterator[tuple[str, list[bytes]]]:
    """Gives the URL and the bodies that came."""
    bodies: list[bytes] = []

    class Counting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(body)
            self.send_response(400 if body == refused else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predictions/model", bodies
        finally:
            server.shutdown()
            thread.join()


def test_every_body_is_sent_once_by_several_clients() -> None:
    sent = [str(index).encode() for index in range(20)]
    done: list[None] = []
    with counting_server() as (url, bodies):
        seconds = send_all(url, sent, 3, lambda: done.append(None))
    assert sorted(bodies) == sorted(sent)
    assert len(seconds) == len(done) == 20
    assert min(seconds) > 0


def test_a_refused_request_is_an_error() -> None:
    with counting_server() as (url, _), pytest.raises(RuntimeError, match="a request got 400"):
        send_all(url, [b"good", b"bad"], 1)


def test_bodies_end_with_the_time() -> None:
    moments = itertools.count(5)
    bodies = for_seconds(itertools.repeat(b"a"), 3.0, lambda: next(moments))
    assert len(list(bodies)) == 3
