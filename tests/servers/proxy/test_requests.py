"""What a front door adds to the requests of a connection, however they are cut on the way."""

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
TRAILED = CHUNKED[:-5].replace(b"5\r", b"05;x=y\r") + b"A\r\n0123456789\r\n00\r\nSum: 1\r\n\r\n"
NO_CHUNKS = CHUNKED.replace(b"5\r", b"+5\r")
ENDLESS_CHUNK = CHUNKED[: CHUNKED.index(b"5\r")] + b"5;" + b"a" * 10_000
BOTH = CHUNKED.replace(b"\r\nTransfer", b"\r\nContent-Length: 3\r\nTransfer")
HEAD = b"HEAD /ping HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
OLD = b"GET /ping HTTP/1.0\r\n\r\n"
UNCLEAR = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
FOLDED = b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"
NO_HTTP = b"\x16\x03\x01 a TLS hello, say \r\n\r\n"
ENDLESS = b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000
ARRIVED = re.compile(rb"\r\nx-d2serve-arrived: ([0-9.]+)\r\nx-d2serve-client: 7(?=\r\n\r\n)")

quickly = settings(max_examples=25)
cuts = st.lists(st.integers(0, 400), max_size=8).map(sorted)


def sent_in_pieces(stream: RequestStream, sent: bytes, at: Sequence[int], now: float = 1) -> bytes:
    """What has gone on to TorchServe at the end."""
    edges = [0, *at, len(sent)]
    pieces = [sent[begin:end] for begin, end in pairwise(edges)]
    return b"".join(stream.feed(piece, now) for piece in pieces) + stream.rest()


@pytest.mark.parametrize(
    ("sent", "understood", "blind"),
    [
        (POST, 1, False),
        (GET, 1, False),
        (POST + GET + POST, 3, False),
        (POST + CHUNKED + GET, 3, False),
        (CHUNKED[:-2], 1, False),
        (TRAILED + GET, 2, False),
        (NO_CHUNKS + GET, 1, True),
        (ENDLESS_CHUNK, 1, True),
        (BOTH + GET, 1, True),
        (POST + HEAD + GET, 1, True),
        (UPGRADE + GET, 0, True),
        (GET + OLD + GET, 1, True),
        (UNCLEAR, 1, True),
        (FOLDED + GET, 0, True),
        (NO_HTTP, 0, True),
        (ENDLESS, 0, True),
        (POST[:-2], 1, False),
        (b"GET / HT", 0, False),
        (b"", 0, False),
    ],
)
@quickly
@given(at=cuts)
def test_each_request_that_is_understood_gets_its_fields_and_nothing_else_changes(
    sent: bytes, understood: int, blind: bool, at: list[int]
) -> None:
    stream = RequestStream(client=7)
    passed = sent_in_pieces(stream, sent, at)
    assert (stream.understood, stream.blind) == (understood, blind)
    assert len(ARRIVED.findall(passed)) == understood
    assert ARRIVED.sub(b"", passed) == sent


@given(sent=st.binary(), at=cuts)
def test_what_is_no_http_passes(sent: bytes, at: list[int]) -> None:
    assert sent_in_pieces(RequestStream(client=7), sent, at) == sent


def test_a_request_arrives_with_its_first_byte() -> None:
    stream = RequestStream(client=7)
    passed = stream.feed(GET + POST[:3], 1.5) + stream.feed(POST[3:], 2) + stream.feed(GET, 3)
    assert ARRIVED.findall(passed) == [b"1.500000", b"1.500000", b"3.000000"]


def test_a_body_does_not_wait_for_its_end() -> None:
    stream = RequestStream(client=7)
    assert stream.feed(POST[:-3], 1).endswith(b"he")
    assert stream.feed(b"l", 1) == b"l"


@pytest.mark.parametrize(
    ("wish", "last"),
    [
        (b"Connection: close", 2),
        (b"connection: TE, Close", 2),
        (b"Connection: TE\r\nConnection: close", 2),
        (b"Connection: keep-alive", None),
        (b"Connection: closed", None),
        (b"X-Connection: close", None),
    ],
)
def test_the_first_request_that_wants_the_connection_to_end_is_known(
    wish: bytes, last: int | None
) -> None:
    stream = RequestStream(client=7)
    wishing = GET.replace(b"Host: a", wish)
    sent_in_pieces(stream, GET + wishing + GET + wishing, [])
    assert (stream.understood, stream.last) == (4, last)
