"""Translation of TorchServe's responses, received in arbitrary pieces."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2serve.servers.torchserve.proxy.responses import ResponseStream

quickly = settings(max_examples=25)
cuts = st.lists(st.integers(0, 600), max_size=8).map(sorted)


def response(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A response in Netty's format."""
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\nx-request-id: 7\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def error(status: str, type_name: str, message: str = "zqx") -> bytes:
    body = {"code": int(status[:3]), "type": type_name, "message": message}
    return response(status, json.dumps(body, indent=2).encode() + b"\n")


CONTRACT_ERROR = b'{"error": {"code": "bad_request", "message": "a", "hint": "b"}}'
HEALTHY = response("200 OK", b'{\n  "status": "Healthy"\n}\n')
UNCHANGED = [
    response("200 OK", b'{"names": []}'),
    response("200 OK", bytes(100_000), "application/x-npy"),
    response("400 Bad Request", CONTRACT_ERROR),
    response("507 Insufficient Storage", CONTRACT_ERROR),
    response("400 Bad Request", b'{"code": 1'),
    response("400 Bad Request", b"[" * 10_000),
    response("404 Not Found", b'{"code": 404, "type": "a", "message": "b"}', "text/plain"),
    response("404 Not Found", b'{"code": 404, "type": "a", "message": "b", "more": 1}'),
    response("413 too large", bytes(20_000)),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + response("200 OK", b"{}"),
    response("200 OK", b""),
    HEALTHY,
]
UNPARSEABLE = [
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\nwhatever",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end of the connection",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.0 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nlong: " + b"a" * 70_000 + b"\r\n\r\n",
    b"\x15\x03\x03 TLS",
]
TRANSLATED = [
    (error("503 Service Unavailable", "ServiceUnavailableException"), 503, "overloaded"),
    (error("404 Not Found", "ModelNotFoundException"), 404, "not_found"),
    (error("404 Not Found", "ResourceNotFoundException"), 404, "not_found"),
    (error("405 Method Not Allowed", "MethodNotAllowedException"), 405, "method_not_allowed"),
    (error("500 Internal Server Error", "ErrorDataDecoderException"), 400, "bad_request"),
    (error("403 Forbidden", "IllegalArgumentException"), 400, "bad_request"),
    (error("400 Bad Request", "InvalidKeyException"), 400, "bad_request"),
    (error("400 Bad Request", "BadRequestException"), 400, "bad_request"),
    (error("500 Internal Server Error", "InternalServerException"), 500, "internal"),
    (error("503 Service Unavailable", "InternalServerException"), 500, "internal"),
    (error("507 Insufficient Storage", "InternalServerException", "Worker died."), 500, "internal"),
    (response("413 Request Entity Too Large", b""), 413, "too_large"),
]


def ready() -> bool:
    return True


def forward_in_pieces(stream: ResponseStream, sent: bytes, at: Sequence[int]) -> bytes:
    """All bytes that the client has received at the end."""
    edges = [0, *at, len(sent)]
    pieces = [sent[begin:end] for begin, end in pairwise(edges)]
    return b"".join(stream.feed(piece) for piece in pieces) + stream.buffered()


@pytest.mark.parametrize("sent", [*UNCHANGED, b"".join(UNCHANGED), b""])
@quickly
@given(at=cuts)
def test_other_responses_are_forwarded_unchanged(sent: bytes, at: list[int]) -> None:
    stream = ResponseStream(ready)
    assert forward_in_pieces(stream, sent, at) == sent
    assert stream.responses == (len(UNCHANGED) if sent == b"".join(UNCHANGED) else bool(sent))
    assert not stream.passthrough


@pytest.mark.parametrize("sent", UNPARSEABLE)
@quickly
@given(at=cuts)
def test_everything_from_an_unparseable_response_on_passes_through(
    sent: bytes, at: list[int]
) -> None:
    stream = ResponseStream(ready)
    sent_bytes = sent + TRANSLATED[0][0]
    assert forward_in_pieces(stream, sent_bytes, at) == sent_bytes
    assert stream.responses == 0


@given(sent=st.binary(), at=cuts)
def test_bytes_that_are_not_http_pass_through(sent: bytes, at: list[int]) -> None:
    assert forward_in_pieces(ResponseStream(ready), sent, at) == sent


@pytest.mark.parametrize(("sent", "status", "code"), TRANSLATED)
@quickly
@given(at=cuts)
def test_torchserves_errors_are_translated_to_the_contracts(
    sent: bytes, status: int, code: str, at: list[int]
) -> None:
    stream = ResponseStream(ready)
    forwarded = forward_in_pieces(stream, UNCHANGED[0] + sent, at)
    assert forwarded.startswith(UNCHANGED[0])
    head, _, body = forwarded[len(UNCHANGED[0]) :].partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    expected = {
        "x-request-id: 7",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(body)}",
    }
    if status == 503:
        expected.add("retry-after: 1")
    assert first.startswith(f"HTTP/1.1 {status} ")
    assert sorted(fields) == sorted(expected)
    content = json.loads(body)["error"]
    assert content["code"] == code
    assert content["message"]
    assert content["hint"]
    assert "zqx" not in body.decode()
    assert stream.responses == 2


def test_healthy_is_only_forwarded_while_a_worker_is_ready() -> None:
    unready = ResponseStream(lambda: False).feed(HEALTHY)
    assert unready.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"no worker is ready" in unready


def test_no_more_responses_are_parsed_than_requests() -> None:
    stream = ResponseStream(ready)
    stream.max_parsed = 1
    first, second = TRANSLATED[0][0], TRANSLATED[1][0]
    forwarded = stream.feed(first + second)
    assert b"overloaded" in forwarded
    assert forwarded.endswith(second)


def test_a_body_is_forwarded_before_its_end() -> None:
    stream = ResponseStream(ready)
    sent = response("200 OK", bytes(1000), "image/png")
    assert stream.feed(sent[:-10]) == sent[:-10]
    assert stream.in_body
    assert stream.feed(sent[-10:]) == sent[-10:]
    assert not stream.in_body
