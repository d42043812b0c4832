"""A server that answers as a test wants, without a model."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = b'{"labels": []}'


@dataclass
class FakeServer:
    """What came in, and what goes out.

    Attributes:
        answer: the number of the request, from 0, to its status and body.
        lag_s: how long each answer takes.
        declared_extra: bytes that the Content-Length promises beyond the body.
        echo: whether the body of an answer is that of its request.
        surplus: what is sent after each answer.
        closes: whether each answer says that it is the connection's last.
    """

    answer: Callable[[int], tuple[int, bytes]] = lambda _: (200, GOOD)
    lag_s: float = 0.0
    declared_extra: int = 0
    echo: bool = False
    surplus: bytes = b""
    closes: bool = False
    url: str = ""
    bodies: Counter[bytes] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def running(fake: FakeServer) -> Iterator[FakeServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with fake.lock:
                fake.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with fake.lock:
                number = len(fake.headers)
                fake.bodies[body] += 1
                fake.headers.append(dict(self.headers))
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            time.sleep(fake.lag_s)
            with fake.lock:
                fake.at_once -= 1
            status, answer = fake.answer(number)
            answer = body if fake.echo else answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer) + fake.declared_extra))
            if fake.closes:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer + fake.surplus)
            self.close_connection |= bool(fake.declared_extra)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A client that leaves is no error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}/predictions/model"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
