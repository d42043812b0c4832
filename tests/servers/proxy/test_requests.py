"""Ordinary requests: what TorchServe receives, and what the client gets."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.polling import wait_until
from tests.servers.proxy.running import (
    CLOSE,
    LONG_TIMEOUTS,
    Reply,
    RunningProxy,
    get,
    post,
    receive_all,
    running_proxy,
)

LARGE = bytes(range(256)) * 40_000
HANDLER_ERROR = Reply("400 Bad Request", b'{"error": {"code": "bad_request"}}')


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningProxy]:
    with running_proxy(models=(("shapes", "1.0"), ("shapes", "2.0"), ("a b", "3"))) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared: RunningProxy) -> RunningProxy:
    shared.upstream.received.clear()
    shared.upstream.reply = Reply()
    shared.upstream.raw_reply = None
    shared.events()
    return shared


@pytest.mark.parametrize(
    ("sent", "target", "query"),
    [
        (post(path="/invocations"), "/invocations", None),
        (post(path="/invocations?a=%20b&c"), "/invocations", "a=%20b&c"),
        (
            post(path="/invocations?model_name=a%20b&c=d"),
            "/invocations?model_name=a%20b",
            "model_name=a%20b&c=d",
        ),
        (post(path="/models/shapes/invoke?a=b"), "/predictions/shapes", "a=b"),
        (post(path="/predictions/shapes"), "/predictions/shapes", None),
        (post(path="/predictions/a%20b"), "/predictions/a%20b", None),
        (post(path="/predictions/shapes/2.0?a=b"), "/predictions/shapes/2.0", "a=b"),
        (post(path="/predictions/shapes/2"), "/predictions/shapes/2.0", None),
        (post(path="/predictions/shapes/7"), "/predictions/shapes/7", None),
        (post(path="/v1/models/shapes:predict?a=b"), "/predictions/shapes", "a=b"),
        (post(path="/v2/models/shapes/infer?a=b"), "/predictions/shapes", "a=b"),
        (post(path="/v2/models/shapes/versions/1/infer"), "/predictions/shapes/1.0", None),
        (post(path="http://b:1/invocations?a"), "/invocations", "a"),
        (post(path="HTTPS://b/invocations"), "/invocations", None),
    ],
)
def test_inference_requests_reach_the_handler_with_their_query(
    proxy: RunningProxy, sent: bytes, target: str, query: str | None
) -> None:
    assert proxy.send(sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).endswith(b"good")
    [received] = proxy.upstream.received
    assert (received.method, received.target, received.body) == ("POST", target, b"hello")
    assert received.fields.get("x-d2serve-query") == query
    is_open_inference = b"/v2" in sent
    assert (received.fields.get("x-d2serve-protocol") == "open-inference") == is_open_inference
    assert proxy.events() == []


def test_fields_end_to_end_are_forwarded_and_others_are_not(proxy: RunningProxy) -> None:
    kept = {"accept": "a, b", "x-d2serve-timeout-ms": "5", "authorization": "Bearer x"}
    dropped = (
        "Keep-Alive: 5",
        "TE: trailers",
        "Proxy-Authorization: b",
        "Own: a",
        "Trailer: A",
        "Proxy-Connection: b",
        "Upgrade: h2c",
        "Expect: 100-continue",
    )
    fields = [f"{name}: {value}" for name, value in kept.items()]
    began = time.monotonic()
    response = proxy.send(post(b"", *fields, *dropped, "Connection: close, own, upgrade"))
    assert b"good" in response
    [received] = proxy.upstream.received
    added = {"host": "a", "content-length": "0"}
    own = {name: received.fields.pop(name) for name in ("x-d2serve-arrived", "x-d2serve-client")}
    assert received.fields == kept | added
    # Written with six digits.
    assert began - 1e-6 <= float(own["x-d2serve-arrived"]) <= time.monotonic()


def test_the_host_of_an_absolute_target_wins(proxy: RunningProxy) -> None:
    proxy.send(post(b"", CLOSE, path="http://b:1/invocations"))
    [received] = proxy.upstream.received
    assert received.fields["host"] == "b:1"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-8",
        "Application/X-WWW-Form-URLencoded",
        "multipart/form-data; boundary=a",
        "Multipart/Form-Data",
    ],
)
def test_torchserve_does_not_parse_forms(proxy: RunningProxy, content_type: str) -> None:
    proxy.send(post(b"{}", CLOSE, f"Content-Type: {content_type}"))
    [received] = proxy.upstream.received
    assert "content-type" not in received.fields
    assert received.fields["x-d2serve-content-type"] == content_type


def test_other_content_types_are_forwarded(proxy: RunningProxy) -> None:
    proxy.send(post(b"{}", CLOSE, "Content-Type: image/png", "X-D2serve-Content-Type: text/html"))
    [received] = proxy.upstream.received
    assert received.fields["content-type"] == "image/png"
    assert "x-d2serve-content-type" not in received.fields


def test_fields_of_the_response_end_to_end_are_forwarded(proxy: RunningProxy) -> None:
    proxy.upstream.reply = Reply(
        "200 Fine",
        fields={"Server-Timing": "a", "Keep-Alive": "5", "Connection": "own", "Own": "b"},
    )
    response = proxy.send(post(b"", CLOSE))
    assert response == (
        b"HTTP/1.1 200 Fine\r\ncontent-length: 4\r\nserver-timing: a\r\n"
        b"Connection: close\r\n\r\ngood"
    )


def test_large_bodies_pass_in_both_directions(proxy: RunningProxy) -> None:
    proxy.upstream.reply = Reply(body=LARGE)
    chunk = b"%x\r\n%s\r\n" % (len(LARGE), LARGE)
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close"
    )
    for sent in (post(LARGE, CLOSE), head + b"\r\n\r\n" + chunk + b"0\r\n\r\n"):
        assert proxy.send(sent).endswith(b"\r\n\r\n" + LARGE)
    assert [received.body for received in proxy.upstream.received] == [LARGE, LARGE]


def test_a_connection_serves_several_requests_over_one_upstream_connection(
    proxy: RunningProxy,
) -> None:
    before = proxy.upstream.connections
    with proxy.connect() as client:
        for body in (b"one", b"two"):
            client.sendall(post(body))
            assert client.recv(4096) == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
    assert [received.body for received in proxy.upstream.received] == [b"one", b"two"]
    assert proxy.upstream.connections == before + 1


def test_an_upstream_connection_that_torchserve_has_closed_is_replaced(
    proxy: RunningProxy,
) -> None:
    proxy.upstream.raw_reply = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"  # then it closes
    with proxy.connect() as client:
        for _ in range(3):
            client.sendall(post())
            assert client.recv(4096).endswith(b"good")
            # All but the proxy's own.
            wait_until(lambda: proxy.upstream.connections - proxy.upstream.closed == 1)


def test_pipelined_requests_are_answered_in_order_one_at_a_time(proxy: RunningProxy) -> None:
    sent = [post(b"%d" % number) for number in range(20)]
    with proxy.connect(b"\r\n".join(sent) + post(b"last", CLOSE)) as client:
        assert receive_all(client).count(b"good") == 21
    bodies = [received.body for received in proxy.upstream.received]
    assert bodies == [*(b"%d" % number for number in range(20)), b"last"]


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)], ids=["close", "keep-alive"])
def test_http_1_0_gets_a_response_and_the_connection_closes(
    proxy: RunningProxy, fields: tuple[str, ...]
) -> None:
    sent = post(b"hello", *fields).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: a\r\n", b"")
    response = proxy.send(sent)
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in response
    assert response.endswith(b"good")
    [received] = proxy.upstream.received
    assert received.body == b"hello"
    assert "transfer-encoding" not in received.fields


@pytest.mark.parametrize("path", ["/ping", "/v2/health/ready", "/v2/models/shapes"])
def test_head_has_the_fields_of_get_without_the_body(proxy: RunningProxy, path: str) -> None:
    head = proxy.send(get(path, CLOSE, method="HEAD"))
    full = proxy.send(get(path, CLOSE))
    fields, _, body = full.partition(b"\r\n\r\n")
    own_id = re.compile(rb"x-request-id: \S+")
    assert own_id.sub(b"", head) == own_id.sub(b"", fields) + b"\r\n\r\n"
    assert body
    assert {received.method for received in proxy.upstream.received} == {"GET"}


def test_a_head_does_not_end_the_connection(proxy: RunningProxy) -> None:
    response = proxy.send(get("/ping", method="HEAD") + post(b"next", CLOSE))
    assert response.count(b"HTTP/1.1 200 OK") == 2
    assert response.endswith(b"good")


def test_a_client_that_waits_for_100_continue_gets_it_before_it_sends(proxy: RunningProxy) -> None:
    with proxy.connect(post(b"hello", CLOSE, "Expect: 100-continue")[:-5]) as client:
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert receive_all(client).endswith(b"good")


def test_a_client_whose_body_is_too_large_is_not_told_to_continue(proxy: RunningProxy) -> None:
    sent = (
        "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 100000001\r\nExpect: 100-continue"
    )
    response = proxy.send(f"{sent}\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_above_the_limit_is_rejected_while_it_arrives(is_chunked: bool) -> None:
    limits = LONG_TIMEOUTS.__class__(request_bytes=5)
    with running_proxy(limits) as proxy:
        if is_chunked:
            head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            response = proxy.send(head + b"\r\n3\r\nabc\r\n3\r\nabc\r\n")
            accepted = proxy.send(head + b"Connection: close\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")
        else:
            response, accepted = proxy.send(post(b"abcdef")), proxy.send(post(b"abcde", CLOSE))
        assert response.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in response
        assert b'"code": "too_large"' in response
        assert accepted.endswith(b"good")


def test_options_reach_torchserve(proxy: RunningProxy) -> None:
    for path in ("*", "/", "/invocations"):
        assert proxy.send(get(path, CLOSE, method="OPTIONS")).endswith(b"good")
    received = [(each.method, each.target) for each in proxy.upstream.received]
    assert received == [("OPTIONS", "/"), ("OPTIONS", "/"), ("OPTIONS", "/invocations")]


@pytest.mark.parametrize("closes", [True, False])
def test_errors_of_the_handler_are_forwarded_unchanged(proxy: RunningProxy, closes: bool) -> None:
    """TorchServe closes its connection after each of them."""
    proxy.upstream.reply = HANDLER_ERROR
    if closes:
        fields = {"connection": "close"}
        proxy.upstream.raw_reply = Reply(HANDLER_ERROR.status, HANDLER_ERROR.body, fields).encode()
    with proxy.connect() as client:
        for _ in range(2):
            client.sendall(post())
            received = client.recv(4096)
            assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"connection" not in received.lower()
            assert received.endswith(HANDLER_ERROR.body)
    assert proxy.events() == []


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 500 Error\r\ncontent-length: 10\r\n\r\nabc",
    ],
    ids=["nothing", "half-a-head", "not-final", "garbage", "half-an-error"],
)
def test_a_response_that_does_not_arrive_is_an_internal_error(
    proxy: RunningProxy, reply: bytes
) -> None:
    proxy.upstream.raw_reply = reply
    response = proxy.send(post(b"", CLOSE))
    assert response.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"] == "internal"
    [event] = proxy.events()
    assert (event["status"], event["code"], event["route"]) == (500, "internal", "/invocations")


def test_a_response_that_breaks_off_breaks_off_for_the_client_too(proxy: RunningProxy) -> None:
    proxy.upstream.raw_reply = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"
    with proxy.connect(post()) as client:
        received = bytearray()
        with suppress(ConnectionResetError):
            while part := client.recv(4096):
                received += part
        assert len(received.partition(b"\r\n\r\n")[2]) <= 3


def test_an_early_response_ends_the_request(proxy: RunningProxy) -> None:
    """TorchServe rejects large bodies before it has read them, and resets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = proxy.server.upstream
        proxy.server.upstream = server.getsockname()
        try:
            with proxy.connect(post(LARGE)[: len(LARGE) // 2]) as client:
                accepted, _ = server.accept()
                with accepted:
                    accepted.recv(100)
                    accepted.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
                response = receive_all(client)
        finally:
            proxy.server.upstream = upstream
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "too_large"' in response


def test_chunked_responses_are_forwarded(proxy: RunningProxy) -> None:
    proxy.upstream.raw_reply = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngo\r\n2\r\nod\r\n0\r\n\r\n"
    )
    response = proxy.send(post(b"", CLOSE))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in response
    assert response.endswith(b"2\r\ngo\r\n2\r\nod\r\n0\r\n\r\n")
