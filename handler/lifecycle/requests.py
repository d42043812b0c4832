"""A client's requests on their way to TorchServe: each gets the time at which it arrived.

TorchServe tells a handler neither when a request came nor how long it waited in the queue.
"""

import re

from handler.lifecycle.http1 import HEAD_END, LONGEST_HEAD, parse_head
from handler.messages import ARRIVED

CLOSE = "close"
NOT_UNDERSTOOD = ("HEAD", "CONNECT")
REQUEST_LINE = re.compile(r"([A-Z]+) [^ ]+ HTTP/1\.1")


class RequestStream:
    """The requests of one connection, passed on as they come but for one more field in each.

    From the first request on that it cannot tell the end of (a HEAD, an upgrade, HTTP/1.0; after a
    chunked one, which is understood itself), it passes on all bytes as they are.

    Attributes:
        understood: how many requests it has read the heads of.
        blind: whether there may be others, which it does not see.
        last: after so many the client wants the connection to end; None where it has not said so.
    """

    def __init__(self) -> None:
        self.understood = 0
        self.blind = False
        self.last: int | None = None
        self._head = bytearray()
        self._arrived = 0.0
        self._body_left = 0

    def feed(self, chunk: bytes, now: float) -> bytes:
        """Takes what the client has sent next, at `now`; gives what goes on to TorchServe."""
        passed = bytearray()
        while chunk and not self.blind:
            if self._body_left:
                body, chunk = chunk[: self._body_left], chunk[self._body_left :]
                self._body_left -= len(body)
                passed += body
                continue
            if not self._head:
                self._arrived = now
            self._head += chunk
            head, separator, rest = bytes(self._head).partition(HEAD_END)
            if not separator:
                self.blind = len(head) > LONGEST_HEAD
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

    def _mark(self, encoded: bytes) -> bytes:
        """The field that a request's head gets; nothing for one that is not understood."""
        head = parse_head(encoded)
        line = REQUEST_LINE.fullmatch(head.first_line) if head else None
        if head is None or not line or line[1] in NOT_UNDERSTOOD or head.values("upgrade"):
            self.blind = True
            return b""
        self.understood += 1
        wishes = ",".join(head.values("connection")).lower().split(",")
        if self.last is None and CLOSE in (wish.strip() for wish in wishes):
            self.last = self.understood
        if head.values("content-length") or head.values("transfer-encoding"):
            body_bytes = head.body_bytes()
            self.blind = body_bytes is None
            self._body_left = body_bytes or 0
        return f"\r\n{ARRIVED}: {self._arrived:.6f}".encode("ascii")
