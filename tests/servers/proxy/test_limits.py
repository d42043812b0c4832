"""Connection limits of the proxy, and how it stops."""

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK
from d2serve.servers.torchserve.proxy import server
from d2serve.servers.torchserve.proxy.limits import SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.process import tls_context
from d2serve.servers.torchserve.proxy.shared_files import FileLock
from tests.certificates import self_signed
from tests.polling import wait_until
from tests.servers.proxy.running import (
    CLOSE,
    LONG_TIMEOUTS,
    RunningProxy,
    get,
    post,
    receive_all,
    running_proxy,
)

FEW_CONNECTIONS = replace(LONG_TIMEOUTS, connections=2)
PING = get("/ping")
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


@pytest.fixture
def proxy() -> Iterator[RunningProxy]:
    with running_proxy(FEW_CONNECTIONS) as proxy:
        yield proxy


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def first(proxy: RunningProxy, sent: bytes) -> bytes:
    """The first bytes of the response on a separate connection."""
    with proxy.connect(sent) as client:
        return client.recv(4096)


@pytest.mark.parametrize("sent", [b"", b"P", post()[:-6]], ids=["silent", "a byte", "in a head"])
def test_clients_without_a_complete_head_do_not_lock_out_other_clients(
    proxy: RunningProxy, stack: ExitStack, sent: bytes
) -> None:
    count = FEW_CONNECTIONS.connections + SPARE_CONNECTIONS + 20
    clients = [stack.enter_context(closing(proxy.connect(sent))) for _ in range(count)]
    assert first(proxy, post()) == RESPONSE
    assert first(proxy, PING) == RESPONSE
    # The longest-idle connection was closed.
    assert receive_all(clients[0]).startswith(b"HTTP/1.1 503 " if sent else b"")
    assert proxy.upstream.connections == 3  # these two, and the proxy's own


def test_requests_beyond_the_limit_are_rejected_at_once(
    proxy: RunningProxy, stack: ExitStack
) -> None:
    idle = stack.enter_context(closing(proxy.connect(post())))
    assert idle.recv(4096) == RESPONSE
    proxy.upstream.received.clear()
    proxy.upstream.release.clear()
    held = stack.enter_context(closing(proxy.connect(post())))
    wait_until(lambda: proxy.upstream.received)
    slow = stack.enter_context(closing(proxy.connect(post()[:-1])))
    wait_until(lambda: proxy.server.bodies.held == len(b"hello" + b"hell"))
    for request in (post(), post(bytes(1_000_000)), get("/v2", CLOSE)):
        response = proxy.send(request)
        assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 1\r\n" in response
        assert b"too many connections" in response
    proxy.upstream.release.set()
    assert held.recv(4096) == RESPONSE
    slow.sendall(b"o")
    assert slow.recv(4096) == RESPONSE
    assert first(proxy, post()) == RESPONSE


def test_health_checks_pass_above_the_limit(proxy: RunningProxy, stack: ExitStack) -> None:
    for _ in range(4):
        stack.enter_context(closing(proxy.connect(post()[:-1])))
    # Two of them are within the limit.
    wait_until(lambda: proxy.server.bodies.held == 2 * len(b"hell"))
    assert b" 503 " in first(proxy, post())
    for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
        assert first(proxy, get(path)).startswith(b"HTTP/1.1 200 OK\r\n")


def test_clients_without_a_handshake_do_not_lock_out_other_clients(
    proxy: RunningProxy, tmp_path: Path, stack: ExitStack
) -> None:
    certificate = self_signed(tmp_path)
    proxy.server.tls = tls_context(str(certificate.chain), str(certificate.key))
    trust = ssl.create_default_context(cafile=certificate.chain)
    silent = [stack.enter_context(closing(proxy.connect())) for _ in range(90)]
    with trust.wrap_socket(proxy.connect(), server_hostname=LOOPBACK) as client:
        client.sendall(post())
        assert client.recv(4096) == RESPONSE
    assert silent[0].recv(1) == b""


def test_stopping_does_not_wait_for_clients_without_a_request(
    proxy: RunningProxy, stack: ExitStack
) -> None:
    for sent in (b"", post()):
        client = stack.enter_context(closing(proxy.connect(sent)))
    assert client.recv(4096) == RESPONSE
    proxy.stop()
    assert client.recv(4096) == b""


def is_refused(proxy: RunningProxy) -> bool:
    """True if the port is closed."""
    try:
        proxy.connect().close()
    except OSError:
        return True
    return False


def test_stopping_waits_for_responses_and_then_closes(proxy: RunningProxy) -> None:
    proxy.upstream.release.clear()
    with proxy.connect(post() + post()) as client:
        wait_until(lambda: proxy.upstream.received)
        proxy.stop()
        wait_until(lambda: is_refused(proxy))
        proxy.upstream.release.set()
        response = receive_all(client)
    assert response == RESPONSE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert len(proxy.upstream.received) == 1


def test_the_server_stops_when_no_worker_has_been_ready_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "NO_WORKER_TIMEOUT_S", 0.3)
    with running_proxy() as proxy:
        assert proxy.folder.port.try_acquire()
        proxy.upstream.release.clear()
        with proxy.connect(post()) as client:
            time.sleep(1)
            assert not proxy.server.is_stopping
            proxy.worker.release()
            response = receive_all(client)
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"no worker is ready" in response
        assert not FileLock(proxy.folder.path / "port").is_held_elsewhere()


def test_the_number_of_connections_is_capped_by_file_descriptors() -> None:
    assert Limits().capped_by_files(20_000) == Limits()
    assert Limits().capped_by_files(1024).connections == (1024 - 64) // 2 - SPARE_CONNECTIONS
    assert Limits().capped_by_files(10).connections == 1


def test_all_request_bodies_together_are_limited(stack: ExitStack) -> None:
    limits = replace(LONG_TIMEOUTS, queued_bytes=10_000)
    proxy = stack.enter_context(running_proxy(limits))
    proxy.upstream.release.clear()
    waiting = stack.enter_context(closing(proxy.connect(post(b"x" * 6_000))))
    wait_until(lambda: proxy.upstream.received)
    for sent in (post(b"x" * 5_000)[:-4_000], chunked(b"x" * 5_000)):
        rejected = first(proxy, sent)
        assert rejected.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after:" in rejected.lower()
    accepted = stack.enter_context(closing(proxy.connect(post(b"x" * 4_000))))
    wait_until(lambda: len(proxy.upstream.received) == 2)
    assert first(proxy, get("/v2/health/live")).startswith(b"HTTP/1.1 200 ")
    proxy.upstream.release.set()
    for client in (waiting, accepted):
        assert client.recv(4096) == RESPONSE
    assert proxy.server.bodies.held == 0
    assert first(proxy, post(b"x" * 10_000)) == RESPONSE


def test_a_body_counts_as_far_as_it_has_arrived(stack: ExitStack) -> None:
    """A client cannot reserve memory by a Content-Length."""
    proxy = stack.enter_context(running_proxy(replace(LONG_TIMEOUTS, queued_bytes=10_000)))
    for _ in range(3):
        stack.enter_context(closing(proxy.connect(post(b"x" * 9_000)[:-8_900])))
    wait_until(lambda: proxy.server.bodies.held == 300)
    assert first(proxy, post(b"x" * 9_000)) == RESPONSE
    assert proxy.server.bodies.held == 300


def test_a_single_body_may_exceed_the_limit_of_all(stack: ExitStack) -> None:
    proxy = stack.enter_context(running_proxy(replace(LONG_TIMEOUTS, queued_bytes=10)))
    assert first(proxy, post(b"x" * 5_000)) == RESPONSE
    assert first(proxy, chunked(b"x" * 5_000)) == RESPONSE


def test_bodies_of_disconnected_clients_are_not_counted(stack: ExitStack) -> None:
    proxy = stack.enter_context(running_proxy(replace(LONG_TIMEOUTS, queued_bytes=10_000)))
    with proxy.connect(post(b"x" * 9_000)[:-1]):
        wait_until(lambda: proxy.server.bodies.held)
    wait_until(lambda: not proxy.server.bodies.held)
    assert first(proxy, post(b"x" * 9_000)) == RESPONSE
    assert proxy.server.bodies.held == 0


def chunked(body: bytes) -> bytes:
    """A request with a body in one chunk."""
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
