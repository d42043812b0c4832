"""uvicorn's HTTP/1.1 protocol, which parses a little at a time.

uvicorn parses at once all that a client has sent, and each piece as soon as it arrives. Meanwhile
no other connection is served.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from d2serve.servers.asgi.parser import Connection
from d2serve.servers.strict_http import HEAD_END

CR, CRLF = b"\r", b"\r\n"
# Parsed at a time, unless the rest is a body of known length. A chunk of one byte takes about
# 10 microseconds.
SLICE_BYTES = 2048
# After slices that took this time in seconds together, the connection waits for a multiple of it.
SLICES_S = 0.001
PAUSE_FACTOR = 3.0
# A pipelined request waits for this time in seconds after the response before it, so that a client
# that sends thousands of them leaves the event loop, and the interpreter lock, to all others.
PIPELINE_PAUSE_S = 0.002
# After more than SMALL_PIECES consecutive pieces of a request, each smaller than this in bytes, the
# connection is read only once in PIECE_PAUSE_S seconds, and receives more at a time.
SMALL_PIECE_BYTES = 512
SMALL_PIECES = 8
PIECE_PAUSE_S = 0.005


class _PausableFlow(FlowControl):
    """uvicorn's flow control, which reads nothing while received bytes wait to be parsed."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class SlicedProtocol(H11Protocol):
    """A connection that leaves time for all others.

    Args:
        args: uvicorn's.
        parser: parses the requests.
        kwargs: uvicorn's.
    """

    def __init__(self, *args: Any, parser: Connection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parser = parser
        self.conn = parser
        self._received = bytearray()
        self._small_pieces = 0
        self._slice_timer: asyncio.TimerHandle | None = None

    # uvicorn's types are narrower than those of asyncio.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to read."""
        super().connection_made(transport)
        self._flow = _PausableFlow(transport)
        self.flow = self._flow

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has not been parsed."""
        super().connection_lost(exc)
        self._received.clear()
        if self._slice_timer:
            self._slice_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, a few at a time where that is slow."""
        if self.transport.is_closing():
            return  # the connection only waits until the client has read its response
        self._unset_keepalive_if_required()
        if not self._received and self._can_parse() and len(data) <= self._parser.body_left:
            super().data_received(data)
        else:
            self._received += data
            if self._slice_timer is None:
                self._parse()
        self._small_pieces = self._small_pieces + 1 if len(data) < SMALL_PIECE_BYTES else 0
        if self._small_pieces > SMALL_PIECES and self._slice_timer is None and self._can_parse():
            self._pause(PIECE_PAUSE_S)

    def on_response_complete(self) -> None:
        """Continue with the next request if it has arrived already."""
        self._small_pieces = 0
        super().on_response_complete()
        if self._received and self._slice_timer is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._slice_timer = self.loop.call_later(PIPELINE_PAUSE_S, self._parse)

    def _pause(self, seconds: float) -> None:
        """Read nothing for a time."""
        self._hold_reading(True)
        self._slice_timer = self.loop.call_later(seconds, self._parse)

    def _parse(self) -> None:
        self._slice_timer = None
        started = self.loop.time()
        while self._can_parse() and (data := self._take_bytes()):
            super().data_received(data)
            elapsed = self.loop.time() - started
            if elapsed >= SLICES_S and self._received and self._can_parse() and self._is_slow():
                self._slice_timer = self.loop.call_later(PAUSE_FACTOR * elapsed, self._parse)
                break
        if self.conn.their_state in (h11.MUST_CLOSE, h11.CLOSED):
            self._received.clear()  # the client has announced that it sends no further request
        self._hold_reading(bool(self._received) and self._received != CR)

    def _take_bytes(self) -> bytes:
        """The next bytes to parse: a head, a part of a chunked body, or the rest of a body."""
        count = SLICE_BYTES if self._is_slow() else self._parser.body_left
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            while self._received.startswith(CRLF):  # some clients end a body with an empty line
                del self._received[: len(CRLF)]
            if self._received == CR:
                return b""
            end = self._received.find(HEAD_END, 0, SLICE_BYTES)
            count = end + len(HEAD_END) if end >= 0 else SLICE_BYTES
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _hold_reading(self, is_held: bool) -> None:
        """Read nothing while received bytes wait to be parsed."""
        self._flow.is_held = is_held
        if is_held:
            self.flow.pause_reading()
        elif self._can_parse():
            self.flow.resume_reading()

    def _can_parse(self) -> bool:
        """True if the next bytes can be parsed now, and not only after the current response."""
        is_open = not self.transport.is_closing()
        return is_open and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _is_slow(self) -> bool:
        """True if a few bytes may be many events: heads and chunks."""
        return self.conn.their_state is h11.IDLE or self._parser.is_chunked
