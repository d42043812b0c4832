"""Read request bodies with limits on their size and on the time that they take."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from starlette.types import Receive

from d2serve.errors import RequestError, client_closed, request_timeout, too_large
from d2serve.servers.body_memory import HeldBody

# The rest of a body up to this size in bytes is read and dropped after an early error response. A
# client that sends such bodies keeps its connection: under overload, to connect again costs the
# machine more than the rejection itself.
MAX_DROPPED_BYTES = 1 << 20


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a request body.

    Attributes:
        max_bytes: maximum size.
        timeout_s: time in seconds in which at least `min_bytes` must arrive.
        min_bytes: number of bytes that count as progress. Otherwise a client could occupy the
            server for days by sending single bytes.
    """

    max_bytes: int
    timeout_s: float = 30.0
    min_bytes: int = 1024


def declared_length(headers: dict[str, str], limits: BodyLimits) -> int:
    """The Content-Length in bytes; 0 without one.

    Raises:
        RequestError: 413 its Content-Length is above the limit.
    """
    length = headers.get("content-length", "")
    size = int(length) if length.isascii() and length.isdecimal() else 0
    if size > limits.max_bytes:
        raise body_too_large(limits)
    return size


def is_short(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True if the client surely sends a body of at most `MAX_DROPPED_BYTES`, or none.

    With `Expect: 100-continue` it may send the body or the next request after an error response.

    Args:
        headers: lower-case names and values of a valid request.
    """
    fields = dict(headers)
    is_framed = b"transfer-encoding" not in fields and b"expect" not in fields
    return is_framed and int(fields.get(b"content-length", 0)) <= MAX_DROPPED_BYTES


async def read_chunks(receive: Receive, limits: BodyLimits, held: HeldBody) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, and count its bytes in `held`.

    Raises:
        RequestError: 413 the body is too large, 408 it arrives too slowly, 499 the client has
            disconnected, 503 all bodies together are too large.
    """
    size, is_last = 0, False
    loop = asyncio.get_running_loop()
    due, needed = loop.time() + limits.timeout_s, limits.min_bytes
    while not is_last:
        try:
            message = await asyncio.wait_for(receive(), due - loop.time())
        except asyncio.TimeoutError:
            raise body_timeout(limits) from None
        if message["type"] == "http.disconnect":
            raise client_closed()
        chunk, is_last = message.get("body", b""), not message.get("more_body", False)
        size += len(chunk)
        if size > limits.max_bytes:
            raise body_too_large(limits)
        held.grow_to(size)
        if size >= needed:
            due, needed = loop.time() + limits.timeout_s, size + limits.min_bytes
        if chunk:
            yield chunk


def body_too_large(limits: BodyLimits) -> RequestError:
    """413: more bytes than `max_request_bytes`."""
    return too_large(
        f"the request body is larger than {limits.max_bytes} bytes",
        "send fewer or smaller images; the server's setting max_request_bytes is the limit",
    )


def body_timeout(limits: BodyLimits) -> RequestError:
    """408: fewer bytes arrived than the minimum rate requires."""
    return request_timeout(
        "the rest of the request body was not received before the timeout",
        f"send the request without pauses, at least {limits.min_bytes} bytes in each "
        f"{limits.timeout_s:g} s",
    )
