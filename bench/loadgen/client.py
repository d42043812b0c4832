"""A client of a server: one kept connection, and no request sent twice. The behaviours that no HTTP
library has use a plain socket, with a connection for each request."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.loadgen.connection import HEAD_END, Connection, parse_head

# Text in a body that each request replaces by one of its own; in the response it is put back, so
# that a response to another request shows.
MARK = b"mark-of-a-request-0000000000000000"
NO_RESPONSE = 0

# Client behaviours: over the client's kept connection; over a connection for this request
# alone, read to its end; where the body is all that is sent, request line and headers included; a
# byte per second, then a reset; a reset in the middle of the request, or of the response.
KEPT, CLOSED, RAW, SLOW = "kept", "closed", "raw", "slow"
RESET_EARLY, RESET_LATE = "reset early", "reset late"

# How the formats of responses start and end, where that is known.
FORMATS = (
    (b"{", b"}"),
    (b"[", b"]"),
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG", b"IEND\xaeB`\x82"),
    (b"\x93NUMPY", b""),
    (b"PK\x03\x04", b""),
)


@dataclass(frozen=True)
class Request:
    """A POST; `name` is unique within a run, headers lack Host, Content-Length and Connection."""

    name: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    behaviour: str = KEPT


class Group(NamedTuple):
    """Requests that are sent in shuffled rounds, with the group's share of all requests."""

    share: float
    requests: Sequence[Request]


class Reply(NamedTuple):
    """Response to a request: `whole` if complete by HTTP and by its format, with the server's id
    of the request, and `surplus` bytes that were received beyond one response."""

    status: int = NO_RESPONSE
    body: bytes = b""
    whole: bool = False
    request_id: str = ""
    surplus: int = 0


def is_whole(body: bytes) -> bool:
    """Return whether a body starts and ends as JSON, JPEG, PNG, NPY or NPZ does."""
    text = body.rstrip(b" \r\n\t")
    return any(text.startswith(start) and text.endswith(end) for start, end in FORMATS)


SLOW_BYTES, SLOW_PAUSE_S = 5, 1.0
RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
REQUEST_ID = "x-request-id"
# Takes long to create.
_context = cache(ssl.create_default_context)


class Client:
    """Sends one request at a time; a whole exchange may take `timeout_s`. Proxies that the
    environment names are not used, and responses are not compressed, which would cost time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._connection: Connection | None = None

    async def send(self, request: Request, body: bytes) -> Reply:
        """Send a request as its behaviour says; a connection that fails is an empty Reply."""
        kept = request.behaviour == KEPT
        exchange = self._exchange(request, body) if kept else raw_exchange(self._url, request, body)
        try:
            return await asyncio.wait_for(exchange, self._timeout_s)
        except (asyncio.TimeoutError, OSError):
            self.close()
            return Reply()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _exchange(self, request: Request, body: bytes) -> Reply:
        surplus, connection = self._count_surplus(), self._connection
        if connection is None or not connection.is_open:
            connection = self._connection = await self._connect()
        response = await connection.exchange(message_of(self._url, request, body, "keep-alive"))
        if response.head is None:
            surplus += len(connection.received)
            self.close()
            return Reply(surplus=surplus)
        content, whole = response.body, response.complete and is_whole(response.body)
        request_id = response.head.fields.get(REQUEST_ID, "")
        return Reply(response.head.status, content, whole, request_id, surplus)

    async def _connect(self) -> Connection:
        parts = urlsplit(self._url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        loop, context = asyncio.get_running_loop(), _context() if secure else None
        _, connection = await loop.create_connection(Connection, host, port, ssl=context)
        return connection

    def _count_surplus(self) -> int:
        """Count the bytes that arrived after the last response, and close the connection if any. A
        second response that arrives together with the first is counted too."""
        found = len(self._connection.received) if self._connection else 0
        if found:
            self.close()
        return found


def message_of(url: str, request: Request, body: bytes, connection: str) -> bytes:
    """The bytes of a request, with a value of the header Connection."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": parts.netloc, "Accept-Encoding": "identity", **request.headers}
    fields |= {"Content-Length": str(len(body)), "Connection": connection}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def raw_exchange(url: str, request: Request, body: bytes) -> Reply:
    """Send a request with a behaviour other than KEPT; OSError where the connection fails."""
    parts = urlsplit(url)
    message = body if request.behaviour == RAW else message_of(url, request, body, "close")
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        if request.behaviour == SLOW:
            for position in range(SLOW_BYTES):
                writer.write(message[position : position + 1])
                await asyncio.sleep(SLOW_PAUSE_S)
        elif request.behaviour == RESET_EARLY:
            writer.write(message[: len(message) // 2])
            await writer.drain()
        elif request.behaviour == RESET_LATE:
            writer.write(message)
            await reader.read(1)
        else:
            # A server may respond before it has received everything.
            writer.write(message)
            received = bytearray()
            with suppress(OSError):
                while chunk := await reader.read(1 << 18):
                    received += chunk
            return parse(bytes(received))
        writer.get_extra_info("socket").setsockopt(*RESET_ON_CLOSE)
        return Reply()
    finally:
        writer.transport.abort()


def parse(received: bytes) -> Reply:
    """The first response in `received`; without one, all of it is surplus."""
    text, _, rest = received.partition(HEAD_END)
    head = parse_head(text)
    if head is None:
        return Reply(surplus=len(received))
    length = int(head.fields.get("content-length", len(rest)))
    body, request_id = rest[:length], head.fields.get(REQUEST_ID, "")
    whole = len(body) == length and is_whole(body)
    return Reply(head.status, body, whole, request_id, len(rest) - len(body))
