"""A client of a server: one kept connection, and no request sent twice. The behaviours that no HTTP
library has use a plain socket, with a connection for each request."""

import asyncio
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

# Text in a body that each request replaces by one of its own; in the response it is put back, so
# that a response to another request shows.
MARK = b"mark-of-a-request-0000000000000000"
NO_RESPONSE = 0

# Client behaviours: over the client's kept connection, by httpx; over a connection for this request
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
FIELD = re.compile(rb"\r\n([^:\r]+): *([^\r]*)")
# Takes long to create.
_context = cache(httpx.create_ssl_context)


class Client:
    """Sends one request at a time; a whole exchange may take `timeout_s`. Proxies that the
    environment names are not used, and responses are not compressed, which would cost time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        options = {"verify": _context(), "timeout": None, "trust_env": False}
        limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
        headers = {"Accept-Encoding": "identity"}
        self._http = httpx.AsyncClient(limits=limits, headers=headers, **options)  # type: ignore[arg-type]
        self._stream: Any = None

    async def send(self, request: Request, body: bytes) -> Reply:
        """Send a request as its behaviour says; a connection that fails is an empty Reply."""
        kept = request.behaviour == KEPT
        exchange = self._exchange(request, body) if kept else raw_exchange(self._url, request, body)
        try:
            return await asyncio.wait_for(exchange, self._timeout_s)
        except (asyncio.TimeoutError, OSError, httpx.TransportError):
            return Reply()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def _exchange(self, request: Request, body: bytes) -> Reply:
        surplus, received, complete = await self._read_surplus(), bytearray(), False
        message: dict[str, Any] = {"content": body, "headers": dict(request.headers)}
        try:
            async with self._http.stream("POST", self._url, **message) as response:
                self._stream = response.extensions.get("network_stream")
                with suppress(httpx.TransportError):
                    async for chunk in response.aiter_raw():
                        received += chunk
                    complete = True
        except httpx.TransportError:
            return Reply(surplus=surplus)
        content, request_id = bytes(received), response.headers.get(REQUEST_ID, "")
        whole = complete and is_whole(content)
        return Reply(response.status_code, content, whole, request_id, surplus)

    async def _read_surplus(self) -> int:
        """Count the bytes that arrived after the last response, and close the connection if any. A
        second response that arrives together with the first is returned as the response to the next
        request, which its id and its body show."""
        if self._stream is None or not self._stream.get_extra_info("is_readable"):
            return 0
        found = b""
        with suppress(httpcore.NetworkError, httpcore.TimeoutException):
            found = await self._stream.read(1 << 16, timeout=1.0)
        await self._stream.aclose()
        self._stream = None
        return len(found)


async def raw_exchange(url: str, request: Request, body: bytes) -> Reply:
    """Send a request with a behaviour other than KEPT; OSError where the connection fails."""
    parts = urlsplit(url)
    fields = {"Host": parts.netloc, **request.headers, "Content-Length": str(len(body))}
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    message = body if request.behaviour == RAW else head + body
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
    head, _, rest = received.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1.1 (\d{3}) ", head)
    fields = {name.lower(): value.decode() for name, value in FIELD.findall(head)}
    if not status:
        return Reply(surplus=len(received))
    length = int(fields.get(b"content-length", len(rest)))
    body, request_id = rest[:length], fields.get(REQUEST_ID.encode(), "")
    whole = len(body) == length and is_whole(body)
    return Reply(int(status[1]), body, whole, request_id, len(rest) - len(body))
