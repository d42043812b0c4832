"""An HTTP/1.1 connection that costs the machine little, because the server runs on it as well."""

import asyncio
import re
from collections.abc import Mapping
from typing import NamedTuple

HEAD_END = b"\r\n\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r\n)")
FIELD = re.compile(rb"\r\n([^:\r]+): *([^\r]*)")


class Head(NamedTuple):
    """A response's status and its fields, with lower-case names."""

    status: int
    fields: Mapping[str, str]

    @property
    def is_last(self) -> bool:
        """Return whether the connection ends after the response."""
        return self.fields.get("connection", "").lower() == "close"


class Response(NamedTuple):
    """A response, `complete` by HTTP; without a head, if the server sent none."""

    head: Head | None = None
    body: bytes = b""
    complete: bool = False


def parse_head(text: bytes) -> Head | None:
    """Parse a status line and fields, without the empty line; None for anything else."""
    status = STATUS_LINE.match(text + b"\r\n")
    if status is None:
        return None
    fields = {name.lower().decode(): value.decode("latin-1") for name, value in FIELD.findall(text)}
    return Head(int(status[1]), fields)


class Connection(asyncio.Protocol):
    """A connection for one request at a time.

    Attributes:
        is_open: whether it can be used for a request.
        received: bytes that belong to no response yet.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.received = bytearray()
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        """Collect the bytes of the response."""
        self.received += data
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response that is being received."""
        self.is_open = False
        self._changed.set()

    def close(self) -> None:
        """Close the connection at once."""
        self.is_open = False
        self._transport.abort()

    async def exchange(self, message: bytes) -> Response:
        """Send a message with one request, and receive its response."""
        self._transport.write(message)
        while (end := self.received.find(HEAD_END)) < 0:
            if not await self._more():
                return Response()
        head = parse_head(bytes(self.received[:end]))
        if head is None:
            return Response()
        del self.received[: end + len(HEAD_END)]
        body, complete = await self._body(head)
        if head.is_last or not complete:
            self.close()
        return Response(head, body, complete)

    async def _body(self, head: Head) -> tuple[bytes, bool]:
        """The body, and whether it is complete."""
        if head.fields.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        if "content-length" in head.fields:
            length = int(head.fields["content-length"])
            body = await self._take(length)
            return body, len(body) == length
        while await self._more():
            pass
        return await self._take(len(self.received)), True

    async def _chunks(self) -> tuple[bytes, bool]:
        body = bytearray()
        while True:
            while (end := self.received.find(b"\r\n")) < 0:
                if not await self._more():
                    return bytes(body), False
            size = int(self.received[:end].partition(b";")[0], 16)
            del self.received[: end + 2]
            chunk = await self._take(size + 2)
            body += chunk[:size]
            if not size or len(chunk) < size + 2:
                return bytes(body), len(chunk) == size + 2

    async def _take(self, length: int) -> bytes:
        """The next bytes; fewer if the connection ends before."""
        while len(self.received) < length and await self._more():
            pass
        taken = bytes(self.received[:length])
        del self.received[:length]
        return taken

    async def _more(self) -> bool:
        """Wait for bytes; False at the end of the connection."""
        if not self.is_open:
            return False
        self._changed.clear()
        before = len(self.received)
        await self._changed.wait()
        return len(self.received) > before
