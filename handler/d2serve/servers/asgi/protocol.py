"""The HTTP/1.1 protocol with timeouts, limits of clients and the contract's errors.

uvicorn limits neither the time of a request's head nor that of a response's delivery, nor what one
client may use. The time of a request's body is limited in `body.py`.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

import h11

from d2serve.errors import RequestError, request_timeout
from d2serve.servers.asgi.limits import UNANSWERABLE, ConnectionLimits, Phase
from d2serve.servers.asgi.parser import Connection
from d2serve.servers.asgi.reading import request_id_of
from d2serve.servers.asgi.rejection import Reject
from d2serve.servers.asgi.responses import to_events, to_response
from d2serve.servers.asgi.slices import SlicedProtocol
from d2serve.servers.asgi.throttling import Client, Clients
from d2serve.servers.asgi.transport import LingeringTransport, unsent_bytes
from d2serve.servers.strict_http import malformed

CLOSE = (b"connection", b"close")
# Connections beyond the limit, for health checks and for 503 responses.
SPARE_CONNECTIONS = 64
# The largest share of the connections that one client may use.
CLIENT_SHARE = 0.75


class TimedProtocol(SlicedProtocol):
    """A connection of a client.

    Args:
        args: uvicorn's.
        limits: the limits.
        max_connections: returns the maximum number of connections.
        on_error: called with every error response that the application does not know of, and the
            identifier of its request.
        reject: rejects requests before the application does; see `rejection.py`.
        clients: the clients of the server; by default this connection's alone.
        kwargs: uvicorn's.
    """

    def __init__(
        self,
        *args: Any,
        limits: ConnectionLimits,
        max_connections: Callable[[], int],
        on_error: Callable[[RequestError, str], None],
        reject: Reject = lambda _: None,
        clients: Clients | None = None,
        **kwargs: Any,
    ) -> None:
        parser = Connection(limits.head_bytes, self._is_rejected)
        super().__init__(*args, parser=parser, **kwargs)
        self._reject = reject
        self._limits, self._max_connections, self._on_error = limits, max_connections, on_error
        self._clients = clients or Clients()
        self._check_timer: asyncio.TimerHandle | None = None
        self._progress: tuple[Phase, int] = (Phase.FIRST_BYTE, 0)
        self._progress_at = self.loop.time()
        self._idle_since = self.loop.time()
        self._requests = 0
        self._is_refused = self._is_waiting = False

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
        self._client = self._clients.of(self.client[0] if self.client else "")
        self._client.connections += 1
        self._make_room()
        self._wait_if_throttled()
        self._check_times()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._client.connections -= 1
        self._end_wait()
        if self._has_failed():
            self._client.record_failure()
        super().connection_lost(exc)
        for timer in (self._check_timer, self.timeout_keep_alive_task):
            if timer:
                timer.cancel()

    def on_response_complete(self) -> None:
        """Count the request."""
        self._requests += 1
        self._idle_since = self.loop.time()
        self._client.record_response()
        super().on_response_complete()

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
        return not self._is_in_progress and not unsent_bytes(self.transport)

    @property
    def idle_since(self) -> float:
        """Time of the last response, else of the connection, by the event loop's clock."""
        return self._idle_since

    @property
    def _is_in_progress(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _parse(self) -> None:
        self._end_wait()
        super()._parse()

    def _wait_if_throttled(self) -> None:
        """Read from the connection only after a pause if the client's others keep failing."""
        pause_s = self._client.pause_s()
        if not pause_s or self.transport.is_closing():
            return
        self._client.waiting += 1
        self._is_waiting = True
        self._pause(pause_s)

    def _end_wait(self) -> None:
        self._client.waiting -= self._is_waiting
        self._is_waiting = False

    def _has_failed(self) -> bool:
        """True if the last request was refused, or is incomplete or without a response."""
        is_partial = bool(self._received or self.conn.trailing_data[0])
        return self._is_refused or self._is_in_progress or is_partial or not self._requests

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
        request_id = self._request_id()
        if self._is_in_progress:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
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
        state = self.cycle.scope["state"] if self._is_in_progress else {}
        return state.get("request_id") or request_id_of({})

    def _make_room(self) -> None:
        """Close an idle connection if there are too many, or too many of this client."""
        limit = self._max_connections() + SPARE_CONNECTIONS
        if len(self.connections) > limit:
            self._evict_idle_connection(None)
        elif self._client.connections > CLIENT_SHARE * limit and not self._client.is_trusted:
            self._evict_idle_connection(self._client)

    def _evict_idle_connection(self, client: Client | None) -> None:
        """Close the longest-idle connection, of a client or of all; if none is idle, this one."""
        others = [
            each
            for each in self.connections
            if isinstance(each, TimedProtocol)
            and each is not self
            and each.is_idle
            and not each.transport.is_closing()
            and client in (None, each._client)
        ]
        oldest = min(others, key=lambda each: each.idle_since, default=self)
        oldest.transport.abort()
