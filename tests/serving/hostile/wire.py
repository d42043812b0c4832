"""A client on a plain socket, which sends what no HTTP library would."""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import parse_headers
from threading import Thread
from typing import IO, Any

Address = tuple[str, int]
TIMEOUT_S = 120
# In which a server closes a connection that it has to close; idle ones stay open for longer.
CLOSE_TIMEOUT_S = 50
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")


@dataclass(frozen=True)
class Response:
    """A complete response; its body is empty if it answers a HEAD."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire:
    """A connection, and what is sent over it.

    Args:
        address: of the server.
        source: IP address of the client; empty for the system's choice.

    Attributes:
        socket: the connection.
    """

    def __init__(self, address: Address, source: str = "") -> None:
        self.socket = socket.create_connection(address, TIMEOUT_S, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self.socket.makefile("rb")

    def close(self) -> None:
        """Close the connection."""
        self._received.close()
        self.socket.close()

    def receive(
        self, *, is_head: bool = False, piece: int = 0, pause_s: float = 0
    ) -> Response | None:
        """Receive the next response; None if the connection is closed instead.

        Args:
            is_head: whether it answers a HEAD, so that it has no body.
            piece: bytes of the body to read at a time; 0 for all of it.
            pause_s: pause between them, in seconds.

        Raises:
            AssertionError: the response is incomplete or not HTTP.
            TimeoutError: it does not arrive.
        """
        try:
            line = self._received.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        status = STATUS_LINE.fullmatch(line)
        assert status, line
        headers = parse_headers(self._received)
        has_body = not is_head and int(status[1]) >= 200
        body = _read_body(self._received, headers, piece, pause_s) if has_body else b""
        return Response(int(status[1]), headers, body)

    def is_closed(self) -> bool:
        """Wait until the server closes the connection; False if it stays open or sends anything."""
        self.socket.settimeout(CLOSE_TIMEOUT_S)
        try:
            return self._received.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def _read_body(received: IO[bytes], headers: Message, piece: int, pause_s: float) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return b"".join(iter(lambda: _read_chunk(received), b""))
    length = headers.get("content-length")
    if length is None:
        return received.read()
    body = b""
    while len(body) < int(length):
        time.sleep(pause_s)
        part = received.read(min(piece or int(length), int(length) - len(body)))
        assert part, f"{len(body)} of {length} bytes were received"
        body += part
    return body


def _read_chunk(received: IO[bytes]) -> bytes:
    size = int(received.readline().partition(b";")[0], 16)
    chunk = received.read(size)
    assert len(chunk) == size
    assert received.readline() == b"\r\n"
    return chunk


Send = Callable[[Wire, bytes], None]


def at_once(wire: Wire, message: bytes) -> None:
    """Send everything as fast as the server takes it."""
    wire.socket.sendall(message)


def in_pieces(size: int, pause_s: float = 0.0) -> Send:
    """Send pieces of `size` bytes with a pause of `pause_s` seconds between them."""

    def send(wire: Wire, message: bytes) -> None:
        for position in range(0, len(message), size):
            wire.socket.sendall(message[position : position + size])
            time.sleep(pause_s)

    return send


def half_closing(wire: Wire, message: bytes) -> None:
    """Send everything, and close the sending side."""
    at_once(wire, message)
    wire.socket.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Outcome:
    """The responses that a client received.

    Attributes:
        responses: the responses, at most as many as expected.
        is_closed: whether the server closed the connection after them; None if that is unknown.
    """

    responses: tuple[Response, ...]
    is_closed: bool | None

    @property
    def statuses(self) -> tuple[int, ...]:
        """The statuses of the responses; empty if the connection was closed instead."""
        return tuple(each.status for each in self.responses)


def converse(
    address: Address,
    message: bytes,
    send: Send,
    *,
    count: int,
    closes: bool,
    is_head: bool = False,
    read_piece: int = 0,
    read_pause_s: float = 0.0,
    source: str = "",
) -> Outcome:
    """Send a message and receive up to `count` responses, both at the same time.

    Args:
        address: of the server.
        message: what is sent.
        send: sends it.
        count: maximum number of responses.
        closes: whether to wait until the server closes the connection.
        is_head: whether the first response answers a HEAD.
        read_piece, read_pause_s: see `Wire.receive`.
        source: see `Wire`.
    """

    def sending() -> None:
        with suppress(OSError):  # a server may refuse the rest
            send(wire, message)

    with closing(Wire(address, source)) as wire:
        sender = Thread(target=sending, daemon=True)
        sender.start()
        responses: list[Response] = []
        while len(responses) < count:
            is_first_head = is_head and not responses
            response = wire.receive(is_head=is_first_head, piece=read_piece, pause_s=read_pause_s)
            if response is None:
                return Outcome(tuple(responses), True)
            responses.append(response)
        is_closed = wire.is_closed() if closes else None
        if is_closed is None:
            sender.join()
        return Outcome(tuple(responses), is_closed)
