"""uvicorn's HTTP/1.1 protocol with timeouts, fair parsing and the contract's errors.

uvicorn limits neither the time of a request's head nor that of a response's delivery, and parses
all that a client has sent at once. The time of a request's body is limited in `body.py`.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from d2serve.errors import RequestError, request_timeout
from d2serve.servers.asgi.limits import UNANSWERABLE, ConnectionLimits, Phase
from d2serve.servers.asgi.parser import Connection
from d2serve.servers.asgi.reading import request_id_of
from d2serve.servers.asgi.rejection import Reject
from d2serve.servers.asgi.responses import to_events, to_response
from d2serve.servers.asgi.transport import LingeringTransport, unsent_bytes
from d2serve.servers.strict_http import HEAD_END, malformed

CR, CRLF = b"\r", b"\r\n"
CLOSE = (b"connection", b"close")
# Parsed at a time, unless the rest is a body of known length. A chunk of one byte takes about
# 10 microseconds, and meanwhile no other connection is served.
SLICE_BYTES = 2048
# After each slice the connection waits for this multiple of the time that it took.
PAUSE_FACTOR = 3.0
# A pipelined request waits for this time in seconds after the response before it, so that a client
# that sends thousands of them leaves the event loop, and the interpreter lock, to all others.
PIPELINE_PAUSE_S = 0.002
# Connections beyond the limit, for health checks and for 503 responses.
SPARE_CONNECTIONS = 64


class _PausableFlow(FlowControl):
    """uvicorn's flow control, which reads nothing while received bytes wait to be parsed."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class TimedProtocol(H11Protocol):
    """A connection of a client.

    Args:
        args: uvicorn's.
        limits: the limits.
        max_connections: returns the maximum number of connections.
        on_error: called with every error response that the application does not know of, and the
            identifier of its request.
        reject: rejects requests before the application does; see `rejection.py`.
        kwargs: uvicorn's.
    """

    def __init__(
        self,
        *args: Any,
        limits: ConnectionLimits,
        max_connections: Callable[[], int],
        on_error: Callable[[RequestError, str], None],
        reject: Reject = lambda _: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._reject = reject
        self._parser = Connection(limits.head_bytes, self._is_rejected)
        self.conn = self._parser
        self._limits, self._max_connections, self._on_error = limits, max_connections, on_error
        self._received = bytearray()
        self._slice_timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._progress: tuple[Phase, int] = (Phase.FIRST_BYTE, 0)
        self._progress_at = self.loop.time()
        self._requests = 0
        self._is_refused = False

    # uvicorn's types are narrower than those of asyncio.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timers of a new connection."""
        if connection := transport.get_extra_info("socket"):
            # asyncio sets it only on sockets that were created with an explicit protocol. Without
            # it, the body of a response waits for the client to acknowledge the head: 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lingering = LingeringTransport(
            transport, self._limits.linger_s, self._may_receive, self.loop
        )
        super().connection_made(lingering)
        self._flow = _PausableFlow(self.transport)
        self.flow = self._flow
        self._evict_idle_connection()
        self._check_times()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._received.clear()
        for timer in (self._slice_timer, self._check_timer, self.timeout_keep_alive_task):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, a few at a time where that is slow."""
        if self.transport.is_closing():
            return  # the connection only waits until the client has read its response
        self._unset_keepalive_if_required()
        if not self._received and self._can_parse() and len(data) <= self._parser.body_left:
            super().data_received(data)
            return
        self._received += data
        if self._slice_timer is None:
            self._parse()

    def on_response_complete(self) -> None:
        """Continue with the next request if it has arrived already."""
        self._requests += 1
        super().on_response_complete()
        if self._received and self._slice_timer is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._slice_timer = self.loop.call_later(PIPELINE_PAUSE_S, self._parse)

    def send_400_response(self, msg: str) -> None:
        """Respond to a malformed request with the contract's error."""
        self._refuse(self._parser.error or malformed("its state is invalid"))

    def shutdown(self) -> None:
        """Close the connection, after the response in progress."""
        if not self.transport.is_closing():
            super().shutdown()

    @property
    def is_idle(self) -> bool:
        """True if no request is in progress."""
        is_done = self.cycle is None or self.cycle.response_complete
        return is_done and not unsent_bytes(self.transport)

    @property
    def idle_since(self) -> float:
        """Time of the last progress, by the event loop's clock."""
        return self._progress_at

    def _parse(self) -> None:
        self._slice_timer = None
        started = self.loop.time()
        while self._can_parse() and (data := self._take_bytes()):
            super().data_received(data)
            if self._received and self._can_parse() and self._is_slow():
                elapsed = self.loop.time() - started
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

    def _check_times(self) -> None:
        """Close the connection if it has made no progress in its phase for too long."""
        self._check_timer = self.loop.call_later(self._limits.check_interval_s, self._check_times)
        phase, count = self._phase()
        if (phase, count) != self._progress:
            self._progress, self._progress_at = (phase, count), self.loop.time()
        waited_s = self.loop.time() - self._progress_at
        if phase is Phase.DELIVERY and waited_s > self._limits.delivery_s:
            self.transport.abort()
        elif phase in UNANSWERABLE and waited_s > self._limits.head_s:
            self.transport.close()
        elif phase is Phase.NEXT_REQUEST and waited_s > self.timeout_keep_alive:
            # uvicorn's own timer ends with the first byte, even if that is an empty line.
            self.transport.close()
        elif phase is Phase.HEAD and waited_s > self._limits.head_s:
            self._refuse(
                request_timeout(
                    "the head of the request was not received before the timeout",
                    f"send the head within {self._limits.head_s:g} s",
                )
            )

    def _phase(self) -> tuple[Phase, int]:
        """The phase, and a number that changes with each progress in it."""
        if unsent := unsent_bytes(self.transport):
            return Phase.DELIVERY, unsent // self._limits.delivery_bytes
        if self.transport.is_closing():
            return Phase.OTHER, 0
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            return Phase.DROPPED_BODY, self._requests
        if self.conn.their_state is not h11.IDLE:
            return Phase.OTHER, 0
        if self._received or self.conn.trailing_data[0]:
            return Phase.HEAD, self._requests
        return (Phase.NEXT_REQUEST if self._requests else Phase.FIRST_BYTE), self._requests

    def _is_rejected(self, request: h11.Request) -> bool:
        """Respond to a request that is rejected by its head; its body is dropped."""
        events = self._reject(request)
        if events is None:
            return False
        self._requests += 1
        self._send(events)
        return True

    def _send(self, events: Iterable[h11.Event]) -> None:
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))

    def _refuse(self, error: RequestError) -> None:
        """Send an error response that the application does not know of, and close."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = self._request_id()
            self._on_error(error, request_id)
            self._send(to_events(to_response(error), request_id, CLOSE))
        self._is_refused = True
        self._received.clear()
        self.transport.close()

    def _may_receive(self) -> bool:
        """True if the client may still send a part of a request that it was refused."""
        is_unread = self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or bool(self._received)
        return is_unread or self._is_refused

    def _request_id(self) -> str:
        """The identifier of the request in progress, else a new one."""
        in_progress = self.cycle and not self.cycle.response_complete
        state = self.cycle.scope["state"] if in_progress else {}
        return state.get("request_id") or request_id_of({})

    def _evict_idle_connection(self) -> None:
        """Close the longest-idle connection when there are too many, else this one."""
        if len(self.connections) <= self._max_connections() + SPARE_CONNECTIONS:
            return
        others = [
            each
            for each in self.connections
            if isinstance(each, TimedProtocol) and each is not self and each.is_idle
        ]
        oldest = min(others, key=lambda each: each.idle_since, default=self)
        oldest.transport.abort()
