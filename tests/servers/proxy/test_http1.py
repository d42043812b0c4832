"""The requests of a connection with the proxy's fields, received in arbitrary pieces."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2serve.servers.torchserve.proxy.http1 import RequestStream

POST = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
WITH_TRAILER = (
    CHUNKED[:-5].replace(b"5\r", b"05;x=y\r") + b"A\r\n0123456789\r\n00\r\nSum: 1\r\n\r\n"
)
INVALID_CHUNK = CHUNKED.replace(b"5\r", b"+5\r")
LONG_CHUNK_LINE = CHUNKED[: CHUNKED.index(b"5\r")] + b"5;" + b"a" * 10_000
TWO_LENGTHS = CHUNKED.replace(b"\r\nTransfer", b"\r\nContent-Length: 3\r\nTransfer")
HEAD = b"HEAD /ping HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
HTTP_1_0 = b"GET /ping HTTP/1.0\r\n\r\n"
AMBIGUOUS_LENGTH = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
FHTTP_1_0ED = b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"
NOT_HTTP = b"\x16\x03\x01 a TLS hello, say \r\n\r\n"
LONG_HEAD = b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000
FIELDS = re.compile(rb"\r\nx-d2serve-arrived: ([0-9.]+)\r\nx-d2serve-client: 7(?=\r\n\r\n)")

quickly = settings(max_examples=25)
cuts = st.lists(st.integers(0, 400), max_size=8).map(sorted)


def forward_in_pieces(
    stream: RequestStream, sent: bytes, at: Sequence[int], now: float = 1
) -> bytes:
    """All bytes that TorchServe has received at the end."""
    edges = [0, *at, len(sent)]
    pieces = [sent[begin:end] for begin, end in pairwise(edges)]
    return b"".join(stream.feed(piece, now) for piece in pieces) + stream.buffered()


@pytest.mark.parametrize(
    ("sent", "parsed", "passthrough"),
    [
        (POST, 1, False),
        (GET, 1, False),
        (POST + GET + POST, 3, False),
        (POST + CHUNKED + GET, 3, False),
        (CHUNKED[:-2], 1, False),
        (WITH_TRAILER + GET, 2, False),
        (INVALID_CHUNK + GET, 1, True),
        (LONG_CHUNK_LINE, 1, True),
        (TWO_LENGTHS + GET, 1, True),
        (POST + HEAD + GET, 1, True),
        (UPGRADE + GET, 0, True),
        (GET + HTTP_1_0 + GET, 1, True),
        (AMBIGUOUS_LENGTH, 1, True),
        (FHTTP_1_0ED + GET, 0, True),
        (NOT_HTTP, 0, True),
        (LONG_HEAD, 0, True),
        (POST[:-2], 1, False),
        (b"GET / HT", 0, False),
        (b"", 0, False),
    ],
)
@quickly
@given(at=cuts)
def test_each_parsed_request_gets_the_fields_and_nothing_else_changes(
    sent: bytes, parsed: int, passthrough: bool, at: list[int]
) -> None:
    stream = RequestStream(client_id=7)
    forwarded = forward_in_pieces(stream, sent, at)
    assert (stream.requests, stream.passthrough) == (parsed, passthrough)
    assert len(FIELDS.findall(forwarded)) == parsed
    assert FIELDS.sub(b"", forwarded) == sent


@given(sent=st.binary(), at=cuts)
def test_bytes_that_are_not_http_pass_through(sent: bytes, at: list[int]) -> None:
    assert forward_in_pieces(RequestStream(client_id=7), sent, at) == sent


def test_the_arrival_time_is_that_of_the_first_byte() -> None:
    stream = RequestStream(client_id=7)
    forwarded = stream.feed(GET + POST[:3], 1.5) + stream.feed(POST[3:], 2) + stream.feed(GET, 3)
    assert FIELDS.findall(forwarded) == [b"1.500000", b"1.500000", b"3.000000"]


def test_a_body_is_forwarded_before_its_end() -> None:
    stream = RequestStream(client_id=7)
    assert stream.feed(POST[:-3], 1).endswith(b"he")
    assert stream.feed(b"l", 1) == b"l"


@pytest.mark.parametrize(
    ("field", "last_request"),
    [
        (b"Connection: close", 2),
        (b"connection: TE, Close", 2),
        (b"Connection: TE\r\nConnection: close", 2),
        (b"Connection: keep-alive", None),
        (b"Connection: closed", None),
        (b"X-Connection: close", None),
    ],
)
def test_the_first_request_with_connection_close_is_the_last_one(
    field: bytes, last_request: int | None
) -> None:
    stream = RequestStream(client_id=7)
    request = GET.replace(b"Host: a", field)
    forward_in_pieces(stream, GET + request + GET + request, [])
    assert (stream.requests, stream.last_request) == (4, last_request)
