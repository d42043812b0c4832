"""Hostile and unusual HTTP, and what each server answers to it.

Unless a row is about images, its request is a health check or has a body that is not an image, so
that clients which repeat it load the HTTP server and not the network.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.serving.hostile.wire import (
    Address,
    Outcome,
    Send,
    at_once,
    converse,
    half_closing,
    in_pieces,
)

SAMPLES = Path(__file__).parents[3] / "models" / "shapes" / "samples"
IMAGE = sorted(SAMPLES.glob("*.jpg"))[0].read_bytes()
NOT_AN_IMAGE = b"just text " * 20
UNSUPPORTED = 415
# Responses to the requests of one connection, in order; () if it is closed without one.
Statuses = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: of the row, unique.
        message: what the client sends.
        expected: the allowed statuses.
        closes: whether the server has to close the connection then, because it cannot know where
            the next request starts.
        send: how the client sends.
        is_head: whether the first request is a HEAD.
        is_prediction: whether the last response is a prediction for IMAGE.
        read_piece, read_pause_s: bytes of a response's body that the client reads at a time, and
            the pause between them in seconds; 0 for all of it.
    """

    name: str
    message: bytes
    expected: tuple[Statuses, ...]
    closes: bool = False
    send: Send = at_once
    is_head: bool = False
    is_prediction: bool = False
    read_piece: int = 0
    read_pause_s: float = 0.0

    def play(self, address: Address, source: str = "") -> Outcome:
        """Be this client once, from an IP address of this machine.

        Raises:
            AssertionError: a response is incomplete or not HTTP.
            TimeoutError: the server does not respond.
        """
        return converse(
            address,
            self.message,
            self.send,
            count=max(map(len, self.expected)),
            closes=self.closes,
            is_head=self.is_head,
            read_piece=self.read_piece,
            read_pause_s=self.read_pause_s,
            source=source,
        )


def head(*lines: str) -> bytes:
    """A request's head."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def get(*fields: str, target: str = "/ping", version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    return head(f"{method} {target} HTTP/{version}", "Host: localhost", *fields)


def post(
    body: bytes = NOT_AN_IMAGE,
    *fields: str,
    target: str = "/invocations",
    version: str = "1.1",
    method: str = "POST",
) -> bytes:
    """A request with a body of known length."""
    length = f"Content-Length: {len(body)}"
    return get(length, *fields, target=target, version=version, method=method) + body


def chunked(body: bytes, size: int, *fields: str) -> bytes:
    """A request with a body in chunks."""
    parts = (body[position : position + size] for position in range(0, len(body), size))
    encoded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return CHUNKED_HEAD.replace(b"\r\n\r\n", "\r\n".join(["", *fields, "", ""]).encode()) + (
        encoded + b"0\r\n\r\n"
    )


CHUNKED_HEAD = get("Transfer-Encoding: chunked", target="/invocations", method="POST")


def malformed(name: str, message: bytes, *statuses: int) -> Case:
    """A row whose request is not valid HTTP/1.1."""
    return Case(name, message, tuple((each,) for each in statuses or (400,)), closes=True)


def accepted(name: str, message: bytes, *statuses: int, send: Send = at_once) -> Case:
    """A row whose requests are all answered, by default the last one as one without an image."""
    return Case(name, message, (statuses or (UNSUPPORTED,),), send=send)


def predicted(name: str, message: bytes, *statuses: int, send: Send = at_once) -> Case:
    """A row with the image, whose last response is the prediction."""
    return Case(name, message, (statuses or (200,),), send=send, is_prediction=True)


LINES = (
    malformed("bare LF line ends", get().replace(b"\r\n", b"\n")),
    malformed("one bare LF", get("A: b").replace(b"A: b\r\n", b"A: b\n")),
    malformed("bare LF at the end of the head", get()[:-2] + b"\n"),
    malformed("bare CR in a field", get("A: b\rc")),
    malformed("bare CR line ends", get().replace(b"\r\n", b"\r")),
    malformed("bare CR in the last line", get()[:-2] + b"\r\r\n"),
    malformed("bare CR before the request", b"\r" + get()),
    malformed("NUL in a field", get("A: b\0c")),
    malformed("NUL in the target", get(target="/ping\0")),
    malformed("folded field", get("A: b\r\n c")),
    malformed("space before the colon", get("Content-Length : 5")),
    malformed("field without a colon", get("hello")),
    malformed("field without a name", get(": b")),
    malformed("space before the first field", b"GET /ping HTTP/1.1\r\n Host: a\r\n\r\n"),
    malformed("no host", b"GET /ping HTTP/1.1\r\n\r\n"),
    malformed("two hosts", get("Host: other")),
    malformed("invalid method", get(method="G{}T")),
    malformed("two spaces in the request line", get(target=" /ping")),
    malformed("raw bytes in the target", get(target="/p\xefng")),
    malformed("not HTTP", b"hello there\r\n\r\n"),
    malformed("HTTP/0.9", b"GET /ping\r\n\r\n"),
    malformed("HTTP/2.0 in the request line", get(version="2.0")),
    malformed("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    accepted("empty line before a request", b"\r\n" + get(), 200),
)

LENGTHS = (
    malformed("two different lengths", post(NOT_AN_IMAGE, "Content-Length: 3")),
    malformed("list of different lengths", post(b"hello").replace(b": 5", b": 5, 6")),
    accepted("the same length twice", post(NOT_AN_IMAGE, f"Content-Length: {len(NOT_AN_IMAGE)}")),
    malformed("length and chunks", chunked(NOT_AN_IMAGE, 50, "Content-Length: 3")),
    malformed("length 0 and chunks", chunked(NOT_AN_IMAGE, 50, "content-length: 0")),
    *(
        malformed(f"length {text}", post(b"hello").replace(b": 5", b": " + text.encode()))
        for text in ("-5", "+5", "5_0", "0x5", "5 5", "five", "5.0")
    ),
    malformed("length 200 MB", post(b"hello").replace(b": 5", b": 200000000"), 413),
    malformed("length of 30 digits", post(b"hello").replace(b": 5", b": " + b"9" * 30), 400, 413),
    malformed("other transfer coding", post(b"hello", "Transfer-Encoding: gzip")),
    malformed("coding before chunked", chunked(b"", 1).replace(b": chunked", b": gzip, chunked")),
    malformed("chunked twice", chunked(b"", 1).replace(b": chunked", b": chunked, chunked")),
    malformed("misspelled chunked", chunked(b"", 1).replace(b": chunked", b": xchunked")),
    # It may be processed if the connection closes (RFC 9112, section 6.1).
    malformed("chunked in HTTP/1.0", chunked(NOT_AN_IMAGE, 50).replace(b"1.1", b"1.0"), 400, 415),
)

CHUNKS = (
    accepted("chunks of 1 byte at full speed", chunked(NOT_AN_IMAGE * 500, 1)),
    predicted("image in chunks of 1 byte", chunked(IMAGE, 1)),
    accepted("chunk extensions", chunked(NOT_AN_IMAGE, 50).replace(b"32\r\n", b"32;a=b\r\n")),
    accepted("trailer", chunked(NOT_AN_IMAGE, 50)[:-2] + b"A: b\r\n\r\n"),
    malformed("chunk that is longer than declared", CHUNKED_HEAD + b"5\r\nhello!!\r\n0\r\n\r\n"),
    malformed("chunk that ends with LF", CHUNKED_HEAD + b"5\r\nhello\n0\r\n\r\n"),
    malformed("chunk size that ends with LF", CHUNKED_HEAD + b"5\nhello\r\n0\r\n\r\n"),
    malformed("trailer that ends with LF", CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nA: b\n\r\n"),
    malformed("last chunk that ends with LF", CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n\n"),
    *(
        malformed(f"chunk size {size!r}", CHUNKED_HEAD + size.encode() + b"\r\nhello\r\n0\r\n\r\n")
        for size in ("-5", "+5", "0x5", "5 5", "", "g", "1" * 25)
    ),
    malformed("endless chunk extension", CHUNKED_HEAD + b"5;" + b"a" * 300_000, 400, 431),
    malformed("endless trailer", CHUNKED_HEAD + b"0\r\n" + b"Name: value\r\n" * 30_000, 400, 431),
)

SIZES = (
    malformed("cookie of 9 kB", get("Cookie: a=" + "b" * 9_000), 431),
    malformed("head of 100 kB", get("A: " + "b" * 100_000), 431),
    malformed("head of 10 MB", get("A: " + "b" * 10_000_000), 431),
    malformed("5,000 fields", get(*(f"a{number}: {number:020}" for number in range(5_000))), 431),
    malformed("target of 100 kB", get(target="/" + "a" * 100_000), 431),
    malformed("endless request line", b"A" * 200_000, 431),
)

METHODS = (
    Case("HEAD", get(method="HEAD") + get(), ((200, 200),), is_head=True),
    Case(
        "HEAD of a prediction", get(method="HEAD", target="/invocations"), ((405,),), is_head=True
    ),
    accepted("GET of a prediction", get(target="/invocations"), 405),
    accepted("DELETE", get(method="DELETE"), 405),
    accepted("TRACE", get(method="TRACE"), 405),
    Case(
        "CONNECT",
        head("CONNECT example.org:443 HTTP/1.1", "Host: example.org:443"),
        ((400,), (404,), (405,)),
    ),
    accepted("unknown route", get(target="/etc/passwd"), 404),
    Case("path with dots", get(target="/static/../../etc/passwd"), ((400,), (404,))),
    Case("escaped NUL in the target", get(target="/ping%00"), ((400,), (404,))),
    predicted("absolute target", post(IMAGE, target="http://localhost/invocations")),
    accepted("absolute target of another host", post(target="HTTP://example.org/invocations")),
    Case(
        "upgrade to WebSocket", get("Connection: Upgrade", "Upgrade: websocket"), ((200,), (400,))
    ),
    predicted(
        "upgrade to HTTP/2",
        post(IMAGE, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
    ),
)

VERSIONS = (
    Case("HTTP/1.0", get(version="1.0"), ((200,),), closes=True),
    Case("HTTP/1.0 with an image", post(IMAGE, version="1.0"), ((200,),), True, is_prediction=True),
    accepted("HTTP/1.0 with keep-alive", get("Connection: keep-alive", version="1.0"), 200),
    Case("HTTP/1.0 without a host", head("GET /ping HTTP/1.0"), ((200,),), closes=True),
    Case("Connection: close", get("Connection: close") + get(), ((200,),), closes=True),
    predicted("100-continue", post(IMAGE, "Expect: 100-continue"), 100, 200),
    malformed(
        "100-continue with 200 MB",
        get(
            "Content-Length: 200000000",
            "Expect: 100-continue",
            target="/invocations",
            method="POST",
        ),
        413,
    ),
)

# A TLS 1.2 handshake as far as the server could tell, followed by what it would need next.
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200)) + b"\r\n\r\n"
OWN_FIELDS = ("Arrived: 0", "Client: 1", "Query: response_type=png", "Protocol: open-inference")
PREFIXES = ("x-d2serve-", "X-D2Serve-", "X-D2SERVE-", "x_d2serve_")


def forged(prefix: str) -> list[str]:
    """The proxy's own fields, from a client."""
    return [prefix + field for field in OWN_FIELDS]


FORGED = (
    *(predicted(f"forged {prefix}*", post(IMAGE, *forged(prefix))) for prefix in PREFIXES),
    accepted("forged fields with a bad body", post(NOT_AN_IMAGE, *forged("X-d2serve-"))),
    predicted(
        "own fields declared hop-by-hop",
        post(IMAGE, "Connection: x-d2serve-arrived, x-d2serve-client, x-d2serve-query"),
    ),
)

PACES = (
    accepted("head byte by byte", get(), 200, send=in_pieces(1)),
    predicted("image byte by byte", post(IMAGE), send=in_pieces(1)),
    accepted("slow write", post(), send=in_pieces(40, 0.2)),
    Case(
        "slow read",
        post(IMAGE, "Accept: image/png"),
        ((200,),),
        read_piece=2_000,
        read_pause_s=0.02,
    ),
    accepted("2,000 pipelined requests", get() * 2_000, *(200,) * 2_000),
    accepted("pipelined predictions", post() * 20, *(UNSUPPORTED,) * 20),
    Case("half-closed", post(), ((), (UNSUPPORTED,)), closes=True, send=half_closing),
    Case("half-closed in the body", post()[:-5], ((), (400,)), closes=True, send=half_closing),
    Case("half-closed in the head", get()[:-2], ((), (400,)), closes=True, send=half_closing),
    Case("half-closed without a request", b"", ((),), closes=True, send=half_closing),
    Case("https to a plain port", CLIENT_HELLO, ((), (400,)), closes=True),
)

CASES = (
    *LINES,
    *LENGTHS,
    *CHUNKS,
    *SIZES,
    *METHODS,
    *VERSIONS,
    *FORGED,
    *PACES,
)


def named(names: Iterable[str]) -> list[Case]:
    """The rows with these names; all for none."""
    chosen = set(names)
    return [case for case in CASES if not chosen or case.name in chosen]
