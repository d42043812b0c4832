"""Hostile HTTP: the status of each case, and what reaches TorchServe."""

import socket
import time
from collections.abc import Iterator

import pytest

from d2serve.messages import NO_STAGES
from tests.polling import wait_until
from tests.servers.proxy.running import (
    CLOSE,
    RunningProxy,
    get,
    post,
    receive_all,
    running_proxy,
)

TLS_HELLO = bytes.fromhex("16030100f8010000f4030334c8d1") + bytes(range(200))
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
CHUNKED = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


def chunked(body: bytes, *fields: bytes) -> bytes:
    return CHUNKED + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningProxy]:
    with running_proxy() as proxy:
        yield proxy


@pytest.fixture
def proxy(shared: RunningProxy) -> RunningProxy:
    shared.upstream.received.clear()
    shared.events()
    return shared


REJECTED = {
    "bare-line-feeds": (b"POST /invocations HTTP/1.1\nHost: a\nContent-Length: 0\n\n", 400),
    "one-bare-line-feed": (post(b"", "A: b\nTransfer-Encoding: chunked"), 400),
    "bare-carriage-return": (post(b"", "A: b\rC: d"), 400),
    "carriage-return-in-the-last-line": (b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
    "carriage-returns-as-line-ends": (b"GET /ping HTTP/1.1\rHost: a\r\r", 400),
    "carriage-return-before-the-request": (b"\r" + get("/ping"), 400),
    "folded-line": (post(b"", "A: b\r\n c"), 400),
    "nul": (post(b"", "A: b\0c"), 400),
    "control-character": (post(b"", "A: b\x01c"), 400),
    "space-before-the-colon": (post(b"", "A : b"), 400),
    "no-colon": (post(b"", "A"), 400),
    "no-host": (b"GET /ping HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (post(b"", "Host: b"), 400),
    "two-lengths": (post(b"hello", "Content-Length: 6"), 400),
    "two-lengths-in-one": (post(b"hello", "Content-Length: 5, 6"), 400),
    "negative-length": (
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    "length-with-sign": (
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        400,
    ),
    "length-and-chunks": (chunked(b"0\r\n\r\n", b"Content-Length: 5"), 400),
    "chunks-and-gzip": (post(b"", "Transfer-Encoding: gzip, chunked"), 400),
    "chunks-twice": (chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 400),
    "length-too-large": (
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
        413,
    ),
    "chunk-without-end": (chunked(b"5\r\nhelloX\r\n0\r\n\r\n"), 400),
    "chunk-with-line-feed": (chunked(b"5\r\nhello\n0\r\n\r\n"), 400),
    "chunk-size-with-line-feed": (chunked(b"5\nhello\r\n0\r\n\r\n"), 400),
    "chunk-size-with-sign": (chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-size-hex-prefix": (chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-size-empty": (chunked(b"\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk-extension-endless": (chunked(b"5;" + b"a" * 600_000), 400),
    "trailer-with-line-feed": (chunked(b"0\r\nA: b\n\n"), 400),
    "last-line-feed": (chunked(b"0\r\n\n"), 400),
    "head-too-large": (post(b"", "A: " + "b" * 8000), 431),
    "line-too-large": (get("/" + "a" * 8000), 431),
    "many-fields": (post(b"", *(f"A{i}: b" for i in range(1000))), 431),
    "endless-line": (b"G" * 100_000, 431),
    "http2": (HTTP2_PREFACE, 400),
    "http3": (get("/ping", version="3.0"), 400),
    "http0.9": (b"GET /ping\r\n\r\n", 400),
    "tls": (TLS_HELLO, 400),
    "garbage": (bytes(range(256)) * 10, 400),
}
# Well-formed requests that the proxy does not forward.
REFUSED = {
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    "websocket": (get("/ping", "Upgrade: websocket", "Connection: Upgrade"), 400),
    "target-without-slash": (get("ping"), 400),
    "target-of-another-scheme": (get("ftp://a/ping"), 400),
    "star": (get("*"), 400),
    "management": (get("/models"), 404),
    "management-of-a-model": (get("/models/shapes", method="DELETE"), 404),
    "path-that-climbs": (post(b"", path="/predictions/../models"), 404),
    "escaped-path-that-climbs": (post(b"", path="/predictions/%2e%2e/models"), 404),
    "escaped-slash": (post(b"", path="/predictions/a%2Fb"), 404),
}


@pytest.mark.parametrize("name", REJECTED)
def test_an_invalid_request_is_rejected_and_nothing_reaches_torchserve(
    proxy: RunningProxy, name: str
) -> None:
    sent, status = REJECTED[name]
    response = proxy.send(sent + post(b"smuggled"))
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert response.count(b"content-type:") == 1, "the next request was processed"
    assert b"\r\ncontent-type: application/json\r\n" in response
    assert b'{"error": {"code": "' in response
    assert not [each for each in proxy.upstream.received if each.body == b"smuggled"]
    [event] = proxy.events()
    assert event["status"] == status
    assert f"\r\nx-request-id: {event['id']}\r\n".encode() in response
    assert f"\r\nserver-timing: {NO_STAGES}\r\n".encode() in response


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_does_not_affect_the_next_one(proxy: RunningProxy, name: str) -> None:
    sent, status = REFUSED[name]
    response = proxy.send(sent + post(b"next", CLOSE))
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert response.endswith(b"good")
    assert [each.body for each in proxy.upstream.received] == [b"next"]
    assert [event["status"] for event in proxy.events()] == [status]


def test_a_head_and_a_body_byte_by_byte_are_accepted(proxy: RunningProxy) -> None:
    with proxy.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in chunked(b"5\r\nhello\r\n0\r\n\r\n", b"Connection: close"):
            client.sendall(bytes([byte]))
            time.sleep(0.0005)
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")
    [received] = proxy.upstream.received
    assert received.body == b"hello"


def test_tiny_chunks_reach_torchserve_as_one(proxy: RunningProxy) -> None:
    body = b"".join(b"1\r\n%c\r\n" % (index % 256) for index in range(3000))
    assert proxy.send(chunked(body + b"0\r\n\r\n", b"Connection: close")).endswith(b"good")
    [received] = proxy.upstream.received
    assert received.body == bytes(index % 256 for index in range(3000))
    assert received.chunks == 1


@pytest.mark.parametrize(
    "name",
    [
        "X-D2Serve-Arrived",
        "x-d2serve-client",
        "X-D2SERVE-QUERY",
        "x-D2serve-Protocol",
        "x-d2serve-",
    ],
)
def test_forged_fields_of_the_proxy_are_dropped(proxy: RunningProxy, name: str) -> None:
    proxy.send(post(b"", f"{name}: forged", CLOSE, f"{name}: forged too"))
    [received] = proxy.upstream.received
    assert "forged" not in str(received.fields)
    assert float(received.fields["x-d2serve-arrived"]) <= time.monotonic()
    assert int(received.fields["x-d2serve-client"]) > 0
    assert "x-d2serve-query" not in received.fields
    assert "x-d2serve-protocol" not in received.fields


@pytest.mark.parametrize("sent", [post(), get("/ping"), post()[:-1], post()[:-8]], ids=len)
def test_a_client_that_ends_its_sending_side_counts_as_disconnected(
    proxy: RunningProxy, sent: bytes
) -> None:
    proxy.upstream.release.clear()
    with proxy.connect(sent) as client:
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    proxy.upstream.release.set()


def test_requests_of_a_disconnected_client_are_marked() -> None:
    with running_proxy() as proxy:
        proxy.upstream.release.clear()
        with proxy.connect(post()) as client:
            wait_until(lambda: proxy.upstream.received)
            [received] = proxy.upstream.received
            client_id = received.fields["x-d2serve-client"]
            assert not proxy.folder.disconnects.is_disconnected(client_id)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
        assert proxy.folder.disconnects.is_disconnected(client_id)
        assert proxy.events() == []  # a worker reports it


def test_a_disconnect_before_the_end_of_a_request_is_reported(proxy: RunningProxy) -> None:
    with proxy.connect(post()[:-1]) as client:
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    [event] = proxy.events()
    assert (event["status"], event["code"]) == (499, "client_closed_request")
