"""Timeouts of the proxy, on a clock that the tests set."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from d2serve.servers.torchserve.proxy import connection, server
from d2serve.servers.torchserve.proxy.limits import MIN_PROGRESS_BYTES, Limits
from tests.polling import wait_until
from tests.servers.proxy.running import Reply, RunningProxy, post, receive_all, running_proxy
from tests.virtual_time import Clock

TIMEOUT_S = 60.0
LIMITS = Limits(request_head_s=TIMEOUT_S, request_body_s=TIMEOUT_S, keep_alive_s=TIMEOUT_S)
EXCEEDS_SOCKET_BUFFERS = 50_000_000
CHUNKED = b"POST /invocations HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(server, "TIMEOUT_CHECK_S", 0.005)
    return clock


@contextmanager
def timed_proxy(clock: Clock, limits: Limits = LIMITS) -> Iterator[RunningProxy]:
    with running_proxy(limits) as proxy:
        clock.is_unused = lambda: not proxy.server._connections
        yield proxy


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"", b"", id="silent"),
        pytest.param(post()[:-8], TIMED_OUT, id="in its head"),
        pytest.param(post()[:-1], TIMED_OUT, id="in its body"),
        pytest.param(CHUNKED, TIMED_OUT, id="in its chunks"),
        pytest.param(post(), RESPONSE, id="after its response"),
        pytest.param(post() + post()[:-8], RESPONSE + TIMED_OUT, id="in its second head"),
        pytest.param(post() + post()[:-1], RESPONSE + TIMED_OUT, id="in its second body"),
    ],
)
def test_a_client_that_stops_sending_is_timed_out(
    clock: Clock, sent: bytes, expected: bytes
) -> None:
    transferred = len(sent) + len(RESPONSE) * expected.count(RESPONSE)
    with timed_proxy(clock) as proxy:
        with proxy.connect(sent) as client:
            wait_until(lambda: proxy.server._connections)
            proxy.wait_until_transferred(transferred)
            clock.advance(TIMEOUT_S - 1)
            assert proxy.server._connections
            clock.advance(2)
            received = receive_all(client)
        events = proxy.events()
    assert received.startswith(expected)
    assert bool(received) == bool(expected)
    if TIMED_OUT in expected:
        assert b'"code": "request_timeout"' in received
        assert b"the rest of the request was not received before the timeout" in received
        assert [(event["status"], event["code"]) for event in events] == [(408, "request_timeout")]


@pytest.mark.parametrize(
    "sent", [pytest.param(b"GET /", id="head"), pytest.param(post(bytes(1000))[:-1000], id="body")]
)
def test_a_client_that_sends_single_bytes_is_timed_out(clock: Clock, sent: bytes) -> None:
    with timed_proxy(clock) as proxy, proxy.connect(sent) as client:
        for count in range(1, 5):
            client.sendall(b"a")
            proxy.wait_until_transferred(len(sent) + count)
            clock.advance(TIMEOUT_S / 4 + 1)
        assert receive_all(client).startswith(TIMED_OUT)


def test_a_server_that_does_not_respond_is_timed_out(clock: Clock) -> None:
    with timed_proxy(clock, Limits(response_s=500)) as proxy:
        proxy.upstream.release.clear()
        with proxy.connect(post()) as client:
            wait_until(lambda: proxy.upstream.received)
            clock.advance(499)
            assert proxy.server._connections
            clock.advance(2)
            response = receive_all(client)
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"did not respond in time" in response


def test_a_long_upload_and_a_long_wait_are_not_timed_out(clock: Clock) -> None:
    request = post(bytes(8 * MIN_PROGRESS_BYTES))
    with timed_proxy(clock) as proxy, proxy.connect() as client:
        proxy.upstream.release.clear()
        for start in range(0, len(request), MIN_PROGRESS_BYTES):
            end = min(start + MIN_PROGRESS_BYTES, len(request))
            client.sendall(request[start:end])
            proxy.wait_until_transferred(end)
            clock.advance(TIMEOUT_S - 1)
        wait_until(lambda: proxy.upstream.received)
        clock.advance(5 * TIMEOUT_S)
        proxy.upstream.release.set()
        assert client.recv(4096) == RESPONSE


def test_a_client_that_does_not_read_its_response_is_timed_out(clock: Clock) -> None:
    with timed_proxy(clock) as proxy:
        proxy.upstream.reply = Reply(body=bytes(EXCEEDS_SOCKET_BUFFERS))
        with proxy.connect(post()) as client:
            wait_until(lambda: proxy.upstream.received)
            wait_until(lambda: is_closed_later(proxy, clock))
            assert len(receive(client)) < EXCEEDS_SOCKET_BUFFERS
        assert proxy.events() == []  # the worker has reported its response


def is_closed_later(proxy: RunningProxy, clock: Clock) -> bool:
    """True if the connection is closed, after it has made no progress for long."""
    clock.advance(TIMEOUT_S + 1)
    return not proxy.server._connections


def test_a_client_that_reads_its_response_slowly_gets_all_of_it(clock: Clock) -> None:
    with timed_proxy(clock) as proxy:
        proxy.upstream.reply = Reply(body=bytes(EXCEEDS_SOCKET_BUFFERS))
        with proxy.connect(post()) as client:
            received = bytearray()
            for _ in range(5):
                before = proxy.transferred_bytes()
                received += receive(client, EXCEEDS_SOCKET_BUFFERS // 10)
                proxy.wait_until_transferred(before + 1)
                clock.advance(TIMEOUT_S - 1)
            received += receive(client, EXCEEDS_SOCKET_BUFFERS - len(received))
    assert len(received) >= EXCEEDS_SOCKET_BUFFERS


def receive(client: socket.socket, size: int = EXCEEDS_SOCKET_BUFFERS) -> bytes:
    """At least `size` bytes of a large response; fewer if the other side disconnects."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while len(received) < size and (chunk := client.recv(1 << 20)):
            received += chunk
    return bytes(received)
