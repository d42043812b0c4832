"""Connection limits and timeouts of the proxy."""

import socket
import socketserver
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Event, Thread

import pytest
from tenacity import Retrying, retry_if_result, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy.limits import MIN_PROGRESS_BYTES, SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.proxy import Proxy
from tests.certificates import self_signed

TIMEOUT_S = 20
LONG_TIMEOUTS = Limits(connections=2, request_head_s=60, request_body_s=60, keep_alive_s=60)
EXCEEDS_SOCKET_BUFFERS = 50_000_000
PING = b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b"POST /hold HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


def post(body: bytes = b"hello", path: str = "/invocations") -> bytes:
    return f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Server(socketserver.ThreadingTCPServer):
    """Responds to each request: to /hold once `release` is set, to /large with a large body."""

    daemon_threads = True
    release: Event
    connections: int = 0


class RequestHandler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.connections += 1
        while line := self.rfile.readline():
            length = 0
            while (field := self.rfile.readline().lower()) not in (b"\r\n", b""):
                if field.startswith(b"content-length"):
                    length = int(field.partition(b":")[2])
            if len(self.rfile.read(length)) < length:
                return
            if b"/hold" in line:
                self.server.release.wait(TIMEOUT_S)
            large = EXCEEDS_SOCKET_BUFFERS if b"/large" in line else 0
            self.wfile.write(large_response(large) if large else RESPONSE)


def large_response(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode() + bytes(length)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server((LOOPBACK, 0), RequestHandler) as server:
        server.release = Event()
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.release.set()
        server.shutdown()


class LimitedProxy:
    """A proxy with limits, and its clients."""

    def __init__(self, server: Server, state: Path, limits: Limits, *certificate: str) -> None:
        self.port = Ports.free().inference
        upstream = f"{LOOPBACK}:{server.server_address[1]}"
        public = f"{LOOPBACK}:{self.port}"
        self.proxy = Proxy(public, upstream, state, limits, certificate)

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.port), TIMEOUT_S)
        client.sendall(sent)
        return client

    def send(self, sent: bytes) -> bytes:
        """The first bytes of the response on a separate connection."""
        with self.connect(sent) as client:
            return client.recv(4096)


@contextmanager
def open_proxy(
    server: Server, folder: Path, limits: Limits, *certificate: str
) -> Iterator[LimitedProxy]:
    """At the end the process has exited, even if clients are still connected."""
    limited = LimitedProxy(server, folder / "server", limits, *certificate)
    try:
        yield limited
    finally:
        server.release.set()
        limited.proxy.close()
        assert limited.proxy.supervisor.process.wait(TIMEOUT_S) == 0


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[LimitedProxy]:
    with open_proxy(server, tmp_path, LONG_TIMEOUTS) as proxy:
        yield proxy


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def receive_all(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    with client.makefile("rb") as response:
        return response.read()


@pytest.mark.parametrize("sent", [b"", b"P", post()[:-6]], ids=["silent", "a byte", "in a head"])
def test_clients_without_a_complete_head_do_not_lock_out_other_clients(
    proxy: LimitedProxy, server: Server, stack: ExitStack, sent: bytes
) -> None:
    count = LONG_TIMEOUTS.connections + SPARE_CONNECTIONS + 20
    clients = [stack.enter_context(closing(proxy.connect(sent))) for _ in range(count)]
    assert proxy.send(post()) == RESPONSE
    assert proxy.send(PING) == RESPONSE
    assert clients[0].recv(1) == b""  # the longest-idle connection was closed
    assert server.connections == 3  # these two, and the proxy's own


def test_requests_beyond_the_limit_are_rejected_at_once(
    proxy: LimitedProxy, stack: ExitStack
) -> None:
    idle = stack.enter_context(closing(proxy.connect(post())))
    assert idle.recv(4096) == RESPONSE
    held = stack.enter_context(closing(proxy.connect(post(path="/hold"))))
    slow = stack.enter_context(closing(proxy.connect(post()[:-1])))
    for request in (
        post(),
        b"GET /hold HTTP/1.0\r\n\r\n",
        b"HEAD /hold HTTP/1.1\r\n\r\n",
        post(bytes(1_000_000)),
    ):
        with proxy.connect(request) as rejected:
            response = receive_all(rejected)
        assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"connection: close\r\n" in response
        assert b"retry-after: 1\r\n" in response
        assert b'"code": "overloaded"' in response
    assert proxy.send(PING) == RESPONSE
    idle.sendall(post())
    assert b"overloaded" in receive_all(idle)
    slow.sendall(b"o")
    assert slow.recv(4096) == RESPONSE
    assert proxy.send(post()) == RESPONSE
    assert not held.recv(0)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"", b"", id="silent"),
        pytest.param(post()[:-8], b"HTTP/1.1 400 Bad Request\r\n", id="in its head"),
        pytest.param(post()[:-1], b"HTTP/1.1 400 Bad Request\r\n", id="in its body"),
        pytest.param(CHUNKED, b"HTTP/1.1 400 Bad Request\r\n", id="in its chunks"),
        pytest.param(post(), RESPONSE, id="after its response"),
        pytest.param(post() + post()[:-8], RESPONSE + b"HTTP/1.1 400", id="in its second head"),
        pytest.param(post() + post()[:-1], RESPONSE + b"HTTP/1.1 400", id="in its second body"),
    ],
)
def test_a_client_that_stops_sending_is_timed_out(
    server: Server, tmp_path: Path, sent: bytes, expected: bytes
) -> None:
    limits = Limits(request_head_s=0.5, request_body_s=0.5, keep_alive_s=0.5)
    with open_proxy(server, tmp_path, limits) as proxy, proxy.connect(sent) as client:
        received = receive_all(client)
    assert received.startswith(expected)
    assert bool(received) == bool(expected)
    if b"400" in expected:
        assert b"the rest of the request was not received before the timeout" in received


@pytest.mark.parametrize(
    ("sent", "limits"),
    [
        pytest.param(b"GET /", replace(LONG_TIMEOUTS, request_head_s=0.5), id="head"),
        pytest.param(
            post(bytes(1000))[:-1000], replace(LONG_TIMEOUTS, request_body_s=0.5), id="body"
        ),
    ],
)
def test_a_client_that_sends_single_bytes_is_timed_out(
    server: Server, tmp_path: Path, sent: bytes, limits: Limits
) -> None:
    with open_proxy(server, tmp_path, limits) as proxy, proxy.connect(sent) as client:
        client.settimeout(0.05)
        for _ in range(999):
            client.sendall(b"a")
            try:
                received = client.recv(4096)
            except TimeoutError:
                continue
            break
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_long_upload_and_a_long_wait_are_not_timed_out(server: Server, tmp_path: Path) -> None:
    limits = replace(LONG_TIMEOUTS, request_head_s=0.6, request_body_s=0.6, keep_alive_s=0.6)
    request = post(bytes(8 * MIN_PROGRESS_BYTES), "/hold")
    with open_proxy(server, tmp_path, limits) as proxy, proxy.connect() as client:
        for position in range(0, len(request), MIN_PROGRESS_BYTES):
            client.sendall(request[position : position + MIN_PROGRESS_BYTES])
            time.sleep(0.25)
        time.sleep(1)
        server.release.set()
        assert client.recv(4096) == RESPONSE


def test_a_client_that_does_not_read_its_response_is_timed_out(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    limits = replace(LONG_TIMEOUTS, connections=1, request_body_s=0.5)
    proxy = stack.enter_context(open_proxy(server, tmp_path, limits))
    client = stack.enter_context(closing(proxy.connect(post(path="/large"))))
    stack.enter_context(closing(proxy.connect()))  # the limit applies from two connections
    until_rejected = Retrying(
        wait=wait_fixed(0.02), retry=retry_if_result(lambda received: received == RESPONSE)
    )
    assert b"overloaded" in until_rejected(proxy.send, post())
    until_accepted = Retrying(
        wait=wait_fixed(0.02), retry=retry_if_result(lambda received: received != RESPONSE)
    )
    assert until_accepted(proxy.send, post()) == RESPONSE
    assert len(receive_slowly(client, chunk_bytes=1 << 20)) < EXCEEDS_SOCKET_BUFFERS


def test_a_client_that_reads_its_response_slowly_gets_all_of_it(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    limits = replace(LONG_TIMEOUTS, request_body_s=0.5)
    proxy = stack.enter_context(open_proxy(server, tmp_path, limits))
    client = stack.enter_context(closing(proxy.connect(post(path="/large"))))
    time.sleep(0.3)
    received = receive_slowly(client, chunk_bytes=1 << 20, pause_s=0.02)
    assert len(received) >= EXCEEDS_SOCKET_BUFFERS


def receive_slowly(client: socket.socket, chunk_bytes: int, pause_s: float = 0) -> bytes:
    """The bytes of a large response, up to its end or until the other side disconnects."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while len(received) < EXCEEDS_SOCKET_BUFFERS and (chunk := client.recv(chunk_bytes)):
            received += chunk
            time.sleep(pause_s)
    return bytes(received)


def test_clients_without_a_handshake_do_not_lock_out_other_clients(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    certificate = self_signed(tmp_path)
    files = str(certificate.chain), str(certificate.key)
    trust = ssl.create_default_context(cafile=certificate.chain)
    with open_proxy(server, tmp_path, LONG_TIMEOUTS, *files) as proxy:
        silent = [stack.enter_context(closing(proxy.connect())) for _ in range(90)]
        with trust.wrap_socket(proxy.connect(), server_hostname=LOOPBACK) as client:
            client.sendall(post())
            assert client.recv(4096) == RESPONSE
        assert silent[0].recv(1) == b""


def test_closing_does_not_wait_for_clients_without_a_request(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    with open_proxy(server, tmp_path, LONG_TIMEOUTS) as proxy:
        for sent in (b"", post()):
            client = stack.enter_context(closing(proxy.connect(sent)))
        assert client.recv(4096) == RESPONSE


def test_closing_waits_for_responses(server: Server, tmp_path: Path, stack: ExitStack) -> None:
    limited = stack.enter_context(open_proxy(server, tmp_path, LONG_TIMEOUTS))
    client = stack.enter_context(closing(limited.connect(post(path="/hold"))))
    while server.connections < 2:
        time.sleep(0.01)
    limited.proxy.close()
    with pytest.raises(TimeoutExpired):
        limited.proxy.supervisor.process.wait(0.5)
    server.release.set()
    assert client.recv(4096) == RESPONSE


def test_the_number_of_connections_is_capped_by_file_descriptors() -> None:
    assert Limits().capped_by_files(20_000) == Limits()
    assert Limits().capped_by_files(1024).connections == (1024 - 64) // 2 - SPARE_CONNECTIONS
    assert Limits().capped_by_files(10).connections == 1
