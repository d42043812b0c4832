"""HTTP/1.1 framing (RFC 9112): heads, chunked bodies and streams of requests."""

import re
from dataclasses import dataclass

from d2serve.messages import ARRIVAL_HEADER, CLIENT_HEADER

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 1 << 16
REQUEST_LINE = re.compile(r"([A-Z]+) [^ ]+ HTTP/1\.1")
# A response to HEAD has a Content-Length and no body; CONNECT opens a tunnel.
UNSUPPORTED_METHODS = ("HEAD", "CONNECT")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
MAX_CHUNK_LINE_BYTES = 4096
# The line end after the data of each chunk.
CHUNK_END_BYTES = 2


@dataclass(frozen=True)
class Head:
    """The head of a message: its start line, and its fields in the order received."""

    start_line: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """All values of a field; `name` in lower case."""
        return [value for field, value in self.fields if field.lower() == name]

    def content_length(self) -> int | None:
        """The length of the body by Content-Length; None if it is absent or ambiguous."""
        lengths = self.values("content-length")
        if self.values("transfer-encoding") or len(lengths) != 1:
            return None
        return int(lengths[0]) if lengths[0].isascii() and lengths[0].isdecimal() else None

    @property
    def has_chunked_body(self) -> bool:
        """True if the body is chunked, without other encodings and without Content-Length."""
        encodings = [value.lower() for value in self.values("transfer-encoding")]
        return encodings == ["chunked"] and not self.values("content-length")

    def encode(self) -> bytes:
        """The bytes of the head, including the empty line at its end."""
        lines = [self.start_line, *(f"{name}: {value}" for name, value in self.fields)]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def parse_head(encoded: bytes) -> Head | None:
    """Parse a head without its final empty line; None if a field is malformed."""
    start_line, *lines = encoded.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    if any(not separator or name != name.strip() or not name for name, separator, _ in pairs):
        return None
    return Head(start_line, tuple((name, value.strip(" \t")) for name, _, value in pairs))


class RequestStream:
    """The requests of one connection, forwarded as they arrive with two more fields in each head.

    The fields are ARRIVAL_HEADER and CLIENT_HEADER of `d2serve.messages`. From the first request
    whose end cannot be determined (a HEAD, an upgrade, HTTP/1.0), all bytes pass through unchanged.

    Args:
        client_id: the connection's id in the `DisconnectTable`.

    Attributes:
        requests: number of request heads parsed.
        passthrough: whether bytes pass through without being parsed.
        request_line: start line of the last head as received, even if it was not parsed.
        last_request: number of the request with `Connection: close`; None before it.
    """

    def __init__(self, client_id: int) -> None:
        self._client_id = client_id
        self.requests = 0
        self.passthrough = False
        self.request_line = b""
        self.last_request: int | None = None
        self._head = bytearray()
        self._arrived = 0.0
        self._body_left = 0
        self._chunked: ChunkedBody | None = None

    @property
    def in_head(self) -> bool:
        """True if a head has begun and is incomplete."""
        return bool(self._head)

    @property
    def in_body(self) -> bool:
        """True if a body is incomplete."""
        return self._body_left > 0 or self._chunked is not None

    def feed(self, received: bytes, now: float) -> bytes:
        """Parse bytes from the client, received at `now`; return the bytes for the server."""
        forwarded = bytearray()
        while received and not self.passthrough:
            if self.in_body:
                count = self._read_body(received)
                forwarded += received[:count]
                received = received[count:]
                continue
            if not self._head:
                self._arrived = now
            self._head += received
            head, separator, rest = bytes(self._head).partition(HEAD_END)
            if not separator:
                self.passthrough = len(head) > MAX_HEAD_BYTES
                self.request_line = head.partition(b"\r\n")[0]
                received = b""
                continue
            self._head.clear()
            forwarded += head + self._begin_request(head) + separator
            received = rest
        if self.passthrough:
            forwarded += self.buffered()
            self._head.clear()
        return bytes(forwarded) + received

    def buffered(self) -> bytes:
        """The bytes of an incomplete head, which have not been forwarded."""
        return bytes(self._head)

    def _read_body(self, received: bytes) -> int:
        """Return how many bytes belong to the body: at least one, unless passthrough begins."""
        if self._chunked is None:
            count = min(self._body_left, len(received))
            self._body_left -= count
            return count
        count = self._chunked.feed(received)
        self.passthrough = self._chunked.invalid
        if self._chunked.complete or self.passthrough:
            self._chunked = None
        return count

    def _begin_request(self, encoded: bytes) -> bytes:
        """Parse a head; return the fields to add, or nothing if passthrough begins."""
        self.request_line = encoded.partition(b"\r\n")[0]
        head = parse_head(encoded)
        line = REQUEST_LINE.fullmatch(head.start_line) if head else None
        if head is None or not line or line[1] in UNSUPPORTED_METHODS or head.values("upgrade"):
            self.passthrough = True
            return b""
        self.requests += 1
        connection_options = ",".join(head.values("connection")).lower().split(",")
        if self.last_request is None and "close" in (each.strip() for each in connection_options):
            self.last_request = self.requests
        if head.has_chunked_body:
            self._chunked = ChunkedBody()
        elif head.values("content-length") or head.values("transfer-encoding"):
            length = head.content_length()
            self.passthrough = length is None
            self._body_left = length or 0
        arrival = f"{ARRIVAL_HEADER}: {self._arrived:.6f}"
        return f"\r\n{arrival}\r\n{CLIENT_HEADER}: {self._client_id}".encode("ascii")


class ChunkedBody:
    """An incremental parser that finds the end of a chunked body (RFC 9112, section 7.1).

    Attributes:
        complete: whether the whole body has arrived, including its trailer.
        invalid: whether the bytes are not a chunked body.
    """

    def __init__(self) -> None:
        self.complete = False
        self.invalid = False
        self._line = bytearray()
        self._chunk_left = 0
        self._in_trailer = False

    def feed(self, received: bytes) -> int:
        """Parse bytes; return how many of them belong to the body."""
        count = 0
        while count < len(received) and not (self.complete or self.invalid):
            if self._chunk_left:
                step = min(self._chunk_left, len(received) - count)
                self._chunk_left -= step
                count += step
                continue
            line, end, _ = received[count : count + MAX_CHUNK_LINE_BYTES].partition(b"\n")
            count += len(line) + len(end)
            self._line += line
            self.invalid = len(self._line) > MAX_CHUNK_LINE_BYTES
            if end:
                self._end_line(bytes(self._line).removesuffix(b"\r"))
                self._line.clear()
        return count

    def _end_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.complete = not line
            return
        size = line.partition(b";")[0].strip(b" \t")
        self.invalid = self.invalid or not CHUNK_SIZE.fullmatch(size)
        if self.invalid:
            return
        length = int(size, 16)
        self._in_trailer = not length
        self._chunk_left = length + CHUNK_END_BYTES if length else 0
