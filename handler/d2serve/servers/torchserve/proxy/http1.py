"""HTTP/1.1 framing (RFC 9112): heads, bodies and request streams."""

import re
from dataclasses import dataclass

from d2serve.messages import ARRIVED, CLIENT

HEAD_END = b"\r\n\r\n"
LONGEST_HEAD = 1 << 16


@dataclass(frozen=True)
class Head:
    """The start of a message: its first line, and its fields in order as they were sent."""

    first_line: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """All values of a field; `name` in lower case."""
        return [value for own, value in self.fields if own.lower() == name]

    def body_bytes(self) -> int | None:
        """How long the body is that follows, as far as Content-Length says so; else None."""
        lengths = self.values("content-length")
        if self.values("transfer-encoding") or len(lengths) != 1:
            return None
        return int(lengths[0]) if lengths[0].isascii() and lengths[0].isdecimal() else None

    @property
    def has_chunked_body(self) -> bool:
        """Whether the body that follows is chunked, and nothing besides."""
        encodings = [value.lower() for value in self.values("transfer-encoding")]
        return encodings == ["chunked"] and not self.values("content-length")

    def encoded(self) -> bytes:
        """The head on the wire, its empty line included."""
        lines = [self.first_line, *(f"{name}: {value}" for name, value in self.fields)]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def parse_head(head: bytes) -> Head | None:
    """Reads a message's start without its empty line; None if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    if any(not separator or name != name.strip() or not name for name, separator, _ in pairs):
        return None
    return Head(first, tuple((name, value.strip(" \t")) for name, _, value in pairs))


SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
LONGEST_LINE = 4096
LINE_END = b"\n"
# After each chunk.
END_BYTES = 2


class ChunkedBody:
    """One body, read as it comes.

    Attributes:
        ended: whether all of it has come.
        broken: whether it is none.
    """

    def __init__(self) -> None:
        self.ended = False
        self.broken = False
        self._line = bytearray()
        self._chunk_left = 0
        self._in_trailer = False

    def feed(self, data: bytes) -> int:
        """How many of the bytes that have come next are its own."""
        taken = 0
        while taken < len(data) and not (self.ended or self.broken):
            if self._chunk_left:
                step = min(self._chunk_left, len(data) - taken)
                self._chunk_left -= step
                taken += step
                continue
            line, end, _ = data[taken : taken + LONGEST_LINE].partition(LINE_END)
            taken += len(line) + len(end)
            self._line += line
            self.broken = len(self._line) > LONGEST_LINE
            if end:
                self._end_of_line(bytes(self._line).removesuffix(b"\r"))
                self._line.clear()
        return taken

    def _end_of_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.ended = not line
            return
        size = line.partition(b";")[0].strip(b" \t")
        self.broken = self.broken or not SIZE.fullmatch(size)
        if self.broken:
            return
        length = int(size, 16)
        self._in_trailer = not length
        self._chunk_left = length + END_BYTES if length else 0


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
