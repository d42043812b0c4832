"""What clients may take of a front door: connections and time."""

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
from d2serve.servers.torchserve.proxy.limits import LEAST_BYTES, SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.proxy import FrontDoor
from tests.certificates import self_signed

TIMEOUT_S = 20
PATIENT = Limits(connections=2, head_s=60, body_s=60, keep_alive_s=60)
MORE_THAN_BUFFERS_HOLD = 50_000_000
PING = b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b"POST /hold HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


def post(body: bytes = b"hello", path: str = "/invocations") -> bytes:
    return f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Server(socketserver.ThreadingTCPServer):
    """Answers each request, those to /hold when `free` is set, and to /large at length."""

    daemon_threads = True
    free: Event
    seen: int = 0


class Answers(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.seen += 1
        while line := self.rfile.readline():
            length = 0
            while (field := self.rfile.readline().lower()) not in (b"\r\n", b""):
                if field.startswith(b"content-length"):
                    length = int(field.partition(b":")[2])
            if len(self.rfile.read(length)) < length:
                return
            if b"/hold" in line:
                self.server.free.wait(TIMEOUT_S)
            large = MORE_THAN_BUFFERS_HOLD if b"/large" in line else 0
            self.wfile.write(_large(large) if large else ANSWER)


def _large(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode() + bytes(length)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server((LOOPBACK, 0), Answers) as server:
        server.free = Event()
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.free.set()
        server.shutdown()


class House:
    """An open door with limits, and its clients."""

    def __init__(self, server: Server, state: Path, limits: Limits, *certificate: str) -> None:
        self.port = Ports.free().inference
        upstream = f"{LOOPBACK}:{server.server_address[1]}"
        public = f"{LOOPBACK}:{self.port}"
        self.door = FrontDoor(public, upstream, state, limits, certificate)

    def connect(self, words: bytes = b"") -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.port), TIMEOUT_S)
        client.sendall(words)
        return client

    def ask(self, words: bytes) -> bytes:
        """The first bytes of the answer on a connection of its own."""
        with self.connect(words) as client:
            return client.recv(4096)


@contextmanager
def opened(server: Server, folder: Path, limits: Limits, *certificate: str) -> Iterator[House]:
    """At the end its process has ended, whoever is still connected."""
    house = House(server, folder / "server", limits, *certificate)
    try:
        yield house
    finally:
        server.free.set()
        house.door.close()
        assert house.door.relay.process.wait(TIMEOUT_S) == 0


@pytest.fixture
def house(server: Server, tmp_path: Path) -> Iterator[House]:
    with opened(server, tmp_path, PATIENT) as house:
        yield house


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def all_of(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    with client.makefile("rb") as answer:
        return answer.read()


@pytest.mark.parametrize("words", [b"", b"P", post()[:-6]], ids=["silent", "a byte", "in a head"])
def test_clients_without_a_whole_head_keep_nobody_out(
    house: House, server: Server, stack: ExitStack, words: bytes
) -> None:
    others = PATIENT.connections + SPARE_CONNECTIONS + 20
    clients = [stack.enter_context(closing(house.connect(words))) for _ in range(others)]
    assert house.ask(post()) == ANSWER
    assert house.ask(PING) == ANSWER
    assert clients[0].recv(1) == b""  # who waited longest made room
    assert server.seen == 3  # these two, and the door itself


def test_one_request_too_many_is_refused_at_once(house: House, stack: ExitStack) -> None:
    kept = stack.enter_context(closing(house.connect(post())))
    assert kept.recv(4096) == ANSWER
    held = stack.enter_context(closing(house.connect(post(path="/hold"))))
    crawling = stack.enter_context(closing(house.connect(post()[:-1])))
    for words in (
        post(),
        b"GET /hold HTTP/1.0\r\n\r\n",
        b"HEAD /hold HTTP/1.1\r\n\r\n",
        post(bytes(1_000_000)),
    ):
        with house.connect(words) as refused:
            answer = all_of(refused)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"connection: close\r\n" in answer
        assert b"retry-after: 1\r\n" in answer
        assert b'"code": "overloaded"' in answer
    assert house.ask(PING) == ANSWER
    kept.sendall(post())
    assert b"overloaded" in all_of(kept)
    crawling.sendall(b"o")
    assert crawling.recv(4096) == ANSWER
    assert house.ask(post()) == ANSWER
    assert not held.recv(0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(b"", b"", id="silent"),
        pytest.param(post()[:-8], b"HTTP/1.1 400 Bad Request\r\n", id="in its head"),
        pytest.param(post()[:-1], b"HTTP/1.1 400 Bad Request\r\n", id="in its body"),
        pytest.param(CHUNKED, b"HTTP/1.1 400 Bad Request\r\n", id="in its chunks"),
        pytest.param(post(), ANSWER, id="after its answer"),
        pytest.param(post() + post()[:-8], ANSWER + b"HTTP/1.1 400", id="in its second head"),
        pytest.param(post() + post()[:-1], ANSWER + b"HTTP/1.1 400", id="in its second body"),
    ],
)
def test_who_does_not_go_on_is_shut_out(
    server: Server, tmp_path: Path, words: bytes, said: bytes
) -> None:
    limits = Limits(head_s=0.5, body_s=0.5, keep_alive_s=0.5)
    with opened(server, tmp_path, limits) as house, house.connect(words) as client:
        heard = all_of(client)
    assert heard.startswith(said)
    assert bool(heard) == bool(said)
    if b"400" in said:
        assert b"the request did not come to its end" in heard


@pytest.mark.parametrize(
    ("at_once", "limits"),
    [
        pytest.param(b"GET /", replace(PATIENT, head_s=0.5), id="head"),
        pytest.param(post(bytes(1000))[:-1000], replace(PATIENT, body_s=0.5), id="body"),
    ],
)
def test_a_byte_at_a_time_is_not_going_on(
    server: Server, tmp_path: Path, at_once: bytes, limits: Limits
) -> None:
    with opened(server, tmp_path, limits) as house, house.connect(at_once) as client:
        client.settimeout(0.05)
        for _ in range(999):
            client.sendall(b"a")
            try:
                heard = client.recv(4096)
            except TimeoutError:
                continue
            break
    assert heard.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_long_upload_and_a_long_wait_are_no_stalls(server: Server, tmp_path: Path) -> None:
    limits = replace(PATIENT, head_s=0.6, body_s=0.6, keep_alive_s=0.6)
    words = post(bytes(8 * LEAST_BYTES), "/hold")
    with opened(server, tmp_path, limits) as house, house.connect() as client:
        for position in range(0, len(words), LEAST_BYTES):
            client.sendall(words[position : position + LEAST_BYTES])
            time.sleep(0.25)
        time.sleep(1)
        server.free.set()
        assert client.recv(4096) == ANSWER


def test_who_does_not_take_the_answer_is_shut_out(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    limits = replace(PATIENT, connections=1, body_s=0.5)
    house = stack.enter_context(opened(server, tmp_path, limits))
    client = stack.enter_context(closing(house.connect(post(path="/large"))))
    stack.enter_context(closing(house.connect()))  # or there would be room for all
    refused = Retrying(wait=wait_fixed(0.02), retry=retry_if_result(lambda said: said == ANSWER))
    assert b"overloaded" in refused(house.ask, post())
    answered = Retrying(wait=wait_fixed(0.02), retry=retry_if_result(lambda said: said != ANSWER))
    assert answered(house.ask, post()) == ANSWER
    assert len(taken(client, at_once=1 << 20)) < MORE_THAN_BUFFERS_HOLD


def test_who_takes_the_answer_slowly_gets_all_of_it(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    house = stack.enter_context(opened(server, tmp_path, replace(PATIENT, body_s=0.5)))
    client = stack.enter_context(closing(house.connect(post(path="/large"))))
    time.sleep(0.3)
    assert len(taken(client, at_once=1 << 20, pause_s=0.02)) >= MORE_THAN_BUFFERS_HOLD


def taken(client: socket.socket, at_once: int, pause_s: float = 0) -> bytes:
    """What comes until all of a large answer is there, or the other side breaks off."""
    heard = bytearray()
    with suppress(ConnectionResetError):
        while len(heard) < MORE_THAN_BUFFERS_HOLD and (chunk := client.recv(at_once)):
            heard += chunk
            time.sleep(pause_s)
    return bytes(heard)


def test_clients_without_a_handshake_keep_nobody_out(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    certificate = self_signed(tmp_path)
    files = str(certificate.chain), str(certificate.key)
    trust = ssl.create_default_context(cafile=certificate.chain)
    with opened(server, tmp_path, PATIENT, *files) as house:
        silent = [stack.enter_context(closing(house.connect())) for _ in range(90)]
        with trust.wrap_socket(house.connect(), server_hostname=LOOPBACK) as client:
            client.sendall(post())
            assert client.recv(4096) == ANSWER
        assert silent[0].recv(1) == b""


def test_a_door_that_closes_does_not_wait_for_clients_without_a_request(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    with opened(server, tmp_path, PATIENT) as house:
        for words in (b"", post()):
            client = stack.enter_context(closing(house.connect(words)))
        assert client.recv(4096) == ANSWER


def test_a_door_that_closes_waits_for_an_answer(
    server: Server, tmp_path: Path, stack: ExitStack
) -> None:
    house = stack.enter_context(opened(server, tmp_path, PATIENT))
    client = stack.enter_context(closing(house.connect(post(path="/hold"))))
    while server.seen < 2:
        time.sleep(0.01)
    house.door.close()
    with pytest.raises(TimeoutExpired):
        house.door.relay.process.wait(0.5)
    server.free.set()
    assert client.recv(4096) == ANSWER


def test_as_many_connections_as_files_allow() -> None:
    assert Limits().affordable(20_000) == Limits()
    assert Limits().affordable(1024).connections == (1024 - 64) // 2 - SPARE_CONNECTIONS
    assert Limits().affordable(10).connections == 1
