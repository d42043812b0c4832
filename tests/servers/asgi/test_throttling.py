"""Clients whose connections keep failing are throttled, and no other."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from socket import SHUT_WR
from typing import Any

import pytest

from d2serve.servers.asgi import protocol as protocol_module
from d2serve.servers.asgi import slices
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.protocol import CLIENT_SHARE, SPARE_CONNECTIONS
from d2serve.servers.asgi.throttling import Client, Clients, ThrottleLimits
from d2serve.servers.exposure import LOOPBACK
from d2serve.serving.requests import HttpResponse
from tests.polling import wait_until
from tests.servers.asgi.fakes import FakePipeline
from tests.servers.asgi.running import RunningServer, read_all, running
from tests.virtual_time import Clock

LIMITS = ThrottleLimits(interval_s=1.0, failures=3, pause_s=5.0, memory_s=20.0, clients=3)
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_PING = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CONNECT = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failed(client: Client, times: int) -> float:
    """The pause after more failures."""
    for _ in range(times):
        client.record_failure()
    return client.pause_s()


def test_the_pause_grows_with_the_failures_and_is_limited(clock: Clock) -> None:
    client = Client(LIMITS, clock)
    assert [failed(client, 1) for _ in range(10)] == [0, 0, 0, 1, 2, 3, 4, 5, 5, 5]


def test_failures_are_forgotten_one_by_one(clock: Clock) -> None:
    client = Client(LIMITS, clock)
    assert failed(client, 5) == 2
    clock.now += 1.5
    assert client.pause_s() == 0.5
    clock.now += 100
    assert failed(client, 4) == 1


def test_no_failure_is_remembered_for_longer_than_the_limit(clock: Clock) -> None:
    client = Client(LIMITS, clock)
    failed(client, 1000)
    clock.now += LIMITS.memory_s - LIMITS.failures * LIMITS.interval_s
    assert client.pause_s() == 0


def test_waiting_connections_are_read_one_after_the_other(clock: Clock) -> None:
    client = Client(LIMITS, clock)
    client.waiting = 7
    assert client.pause_s() == 0
    assert failed(client, 20) == LIMITS.pause_s + 7 * LIMITS.interval_s


def test_responses_make_up_for_failures_but_not_in_advance(clock: Clock) -> None:
    client = Client(LIMITS, clock)
    for _ in range(50):
        client.record_response()
    assert failed(client, 5) == 2
    client.record_response()
    assert client.pause_s() == 1


def test_a_reverse_proxy_is_never_throttled(clock: Clock) -> None:
    clients = Clients(lambda address: address == "10.0.0.1", LIMITS, clock)
    assert failed(clients.of("10.0.0.1"), 50) == 0
    assert failed(clients.of(""), 50) == 0
    assert failed(clients.of("10.0.0.2"), 50) == LIMITS.pause_s


def test_the_addresses_of_one_owner_are_one_client(clock: Clock) -> None:
    clients = Clients(limits=LIMITS, clock=clock)
    assert clients.of("2001:db8::1") is clients.of("2001:db8::ffff:1")
    assert clients.of("2001:db8::1") is not clients.of("2001:db8:0:1::1")
    assert clients.of("192.0.2.1") is clients.of("::ffff:192.0.2.1")
    assert clients.of("192.0.2.1") is not clients.of("192.0.2.2")


def test_the_least_recent_client_without_a_connection_is_forgotten(clock: Clock) -> None:
    clients = Clients(limits=LIMITS, clock=clock)
    first, *others = (clients.of(f"192.0.2.{number}") for number in range(LIMITS.clients))
    first.connections = 1
    assert clients.of("192.0.2.1") is others[0]
    clients.of("192.0.2.9")
    assert clients.of("192.0.2.0") is first
    assert clients.of("192.0.2.1") is others[0]
    assert clients.of("192.0.2.2") is not others[1]


@pytest.fixture
def clients(clock: Clock) -> Clients:
    """Clients that are throttled from the first failure, a little for each."""
    limits = ThrottleLimits(interval_s=0.001, failures=0, pause_s=0.01)
    return Clients(limits=limits, clock=clock)


@pytest.fixture
def server(clients: Clients) -> Iterator[RunningServer]:
    app = create_app({"shapes": FakePipeline()})
    with running(app, clients=clients) as served:
        yield served


def failures(server: RunningServer, clients: Clients) -> int:
    """The number of failures when all connections have ended."""
    wait_until(lambda: not server.state.connections)
    return round(clients.of(LOOPBACK).pause_s() / 0.001)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /pi",
        POST + b"abc",
        b"GET /ping HTTP/1.1\nHost: x\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        CONNECT,
        PING + CONNECT,
        PING + b"GET",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_a_connection_without_a_complete_request_is_a_failure(
    server: RunningServer, clients: Clients, sent: bytes
) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        if sent.startswith(PING):
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.shutdown(SHUT_WR)
        read_all(connection)
    assert failures(server, clients) == 1


def test_a_client_that_disconnects_before_its_response_has_failed(clients: Clients) -> None:
    pipeline = FakePipeline(respond=None)
    with running(create_app({"shapes": pipeline}), clients=clients) as server:
        with server.connect() as connection:
            connection.sendall(PING)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            connection.sendall(POST + b"12345")
            wait_until(lambda: pipeline.futures)
        assert failures(server, clients) == 1
        pipeline.futures[0].set_result(HttpResponse(200, "text/plain", b""))


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /ping HTTP/1.0\r\n\r\n",
        b"GET /unknown HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"DELETE /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_complete_request_makes_up_for_a_failure(
    server: RunningServer, clients: Clients, request_head: bytes
) -> None:
    """Also one without keep-alive, and one with an error of the contract."""
    failed(clients.of(LOOPBACK), 3)
    server.exchange(request_head)
    assert failures(server, clients) == 2


@pytest.mark.parametrize("pause_s", [0.1, 600.0])
def test_a_throttled_connection_is_read_after_its_pause(clock: Clock, pause_s: float) -> None:
    """Meanwhile others are read."""
    limits = ThrottleLimits(failures=0, pause_s=pause_s, interval_s=pause_s)
    clients, pipeline = Clients(limits=limits, clock=clock), FakePipeline()
    client = clients.of(LOOPBACK)
    with running(create_app({"shapes": pipeline}), clients=clients) as server:
        client.record_failure()
        with server.connect() as throttled:
            throttled.sendall(POST + b"first")
            wait_until(lambda: client.connections)
            client.record_response()
            with server.connect() as other:
                other.sendall(POST + b"later")
                assert other.recv(1000).startswith(b"HTTP/1.1 200 ")
            if pause_s < 1:
                assert throttled.recv(1000).startswith(b"HTTP/1.1 200 ")
            else:
                connection = server.connection_of(throttled)
                connection.loop.call_soon_threadsafe(connection.transport.abort)
                assert read_all(throttled) in (b"", b"(reset)")
    bodies = [request.parts[0].body for request in pipeline.requests]
    assert sorted(bodies) == [b"first", b"later"] if pause_s < 1 else [b"later"]
    assert client.waiting == client.connections == 0


@pytest.mark.parametrize("is_trusted", [False, True])
def test_one_client_uses_a_share_of_the_connections(clock: Clock, is_trusted: bool) -> None:
    clients = Clients(lambda _: is_trusted, LIMITS, clock)
    app = create_app({"shapes": FakePipeline()})
    count = round(CLIENT_SHARE * (16 + SPARE_CONNECTIONS))
    options: dict[str, Any] = {
        "max_connections": lambda: 16,
        "clients": clients,
    }
    with running(app, **options) as server, ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(count)]
        for each in opened:
            each.sendall(PING)
            content = b""
            while not content.endswith(b"}"):
                content += each.recv(1000)
        assert server.exchange(LAST_PING).startswith(b"HTTP/1.1 200 ")
        if is_trusted:
            opened[0].sendall(LAST_PING)
            assert read_all(opened[0]).startswith(b"HTTP/1.1 200 ")
        else:
            assert read_all(opened[0]) in (b"", b"(reset)")
        opened[1].sendall(LAST_PING)
        assert read_all(opened[1]).startswith(b"HTTP/1.1 200 ")


def test_small_pieces_are_read_together(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "PIECE_PAUSE_S", 0.2)
    reads: list[int] = []
    receive = protocol_module.TimedProtocol.data_received

    def data_received(connection: protocol_module.TimedProtocol, data: bytes) -> None:
        reads.append(len(data))
        receive(connection, data)

    def wait_until_read(count: int) -> None:
        wait_until(lambda: sum(reads) == count)

    monkeypatch.setattr(protocol_module.TimedProtocol, "data_received", data_received)
    message = POST.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"12345"
    with server.connect() as client:
        for index in range(len(message)):
            client.sendall(message[index : index + 1])
            if index <= slices.SMALL_PIECES:
                wait_until_read(index + 1)
            else:
                time.sleep(0.001)  # another thread reads it, if it reads at all
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert sum(reads) == len(message)
    # All the rest arrives during one pause; a slow machine may need a few.
    assert len(reads) < len(message) / 2
