"""A client's requests on their way to TorchServe: each gets its time of arrival and its client.

TorchServe tells a handler neither when a request came, nor how long it waited in the queue, nor
whether anybody still waits for the answer.
"""

import re

from handler.lifecycle.chunked import ChunkedBody
from handler.lifecycle.http1 import HEAD_END, LONGEST_HEAD, parse_head
from handler.messages import ARRIVED, CLIENT

CLOSE = "close"
NOT_UNDERSTOOD = ("HEAD", "CONNECT")
REQUEST_LINE = re.compile(r"([A-Z]+) [^ ]+ HTTP/1\.1")


class RequestStream:
    """The requests of one connection, passed on as they come but for two more fields in each.

    From the first request on that it cannot tell the end of (a HEAD, an upgrade, HTTP/1.0), it
    passes on all bytes as they are.

    Args:
        client: the connection's number.

    Attributes:
        understood: how many requests it has read the heads of.
        blind: whether there may be others, which it does not see.
        first_line: of the last head, as it was sent, understood or not.
        last: after so many the client wants the connection to end; None where it has not said so.
    """

    def __init__(self, client: int) -> None:
        self._client = client
        self.understood = 0
        self.blind = False
        self.first_line = b""
        self.last: int | None = None
        self._head = bytearray()
        self._arrived = 0.0
        self._body_left = 0
        self._chunked: ChunkedBody | None = None

    @property
    def in_head(self) -> bool:
        """Whether a head has begun that is not there yet."""
        return bool(self._head)

    @property
    def in_body(self) -> bool:
        """Whether the rest of a body is still to come."""
        return self._body_left > 0 or self._chunked is not None

    def feed(self, chunk: bytes, now: float) -> bytes:
        """Takes what the client has sent next, at `now`; gives what goes on to TorchServe."""
        passed = bytearray()
        while chunk and not self.blind:
            if self.in_body:
                taken = self._read_body(chunk)
                passed += chunk[:taken]
                chunk = chunk[taken:]
                continue
            if not self._head:
                self._arrived = now
            self._head += chunk
            head, separator, rest = bytes(self._head).partition(HEAD_END)
            if not separator:
                self.blind = len(head) > LONGEST_HEAD
                self.first_line = head.partition(b"\r\n")[0]
                chunk = b""
                continue
            self._head.clear()
            passed += head + self._mark(head) + separator
            chunk = rest
        if self.blind:
            passed += self.rest()
            self._head.clear()
        return bytes(passed) + chunk

    def rest(self) -> bytes:
        """What it has held back, at the end."""
        return bytes(self._head)

    def _read_body(self, chunk: bytes) -> int:
        """How many of the bytes belong to the body; at least one, or all that follows is blind."""
        if self._chunked is None:
            taken = min(self._body_left, len(chunk))
            self._body_left -= taken
            return taken
        taken = self._chunked.feed(chunk)
        self.blind = self._chunked.broken
        if self._chunked.ended or self.blind:
            self._chunked = None
        return taken

    def _mark(self, encoded: bytes) -> bytes:
        """The fields that a request's head gets; none for one that is not understood."""
        self.first_line = encoded.partition(b"\r\n")[0]
        head = parse_head(encoded)
        line = REQUEST_LINE.fullmatch(head.first_line) if head else None
        if head is None or not line or line[1] in NOT_UNDERSTOOD or head.values("upgrade"):
            self.blind = True
            return b""
        self.understood += 1
        wishes = ",".join(head.values("connection")).lower().split(",")
        if self.last is None and CLOSE in (wish.strip() for wish in wishes):
            self.last = self.understood
        if head.has_chunked_body:
            self._chunked = ChunkedBody()
        elif head.values("content-length") or head.values("transfer-encoding"):
            body_bytes = head.body_bytes()
            self.blind = body_bytes is None
            self._body_left = body_bytes or 0
        fields = f"\r\n{ARRIVED}: {self._arrived:.6f}\r\n{CLIENT}: {self._client}"
        return fields.encode("ascii")
