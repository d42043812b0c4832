"""The state of one connection: its requests, responses and timeouts, without any I/O."""

import time
from collections.abc import Callable

from d2serve.errors import RequestError
from d2serve.servers.torchserve.proxy.http1 import RequestStream
from d2serve.servers.torchserve.proxy.limits import Limits, Phase, PhaseTimer
from d2serve.servers.torchserve.proxy.responses import (
    ResponseStream,
    error_response,
    incomplete_request,
)

CONNECTION_CLOSE = (("connection", "close"),)


class ConnectionState:
    """Both directions of one connection, without the sockets.

    Args:
        client_id: the connection's id in the `DisconnectTable`.
        is_ready: whether any worker can take requests.
        limits: the timeouts.
        unsent_bytes: number of response bytes that the client has not read yet.

    Attributes:
        error: the error to send in place of the response that the client waits for.
        closed: whether the final response has been sent.
    """

    def __init__(
        self,
        client_id: int,
        is_ready: Callable[[], bool],
        limits: Limits,
        unsent_bytes: Callable[[], int],
    ) -> None:
        self.error: RequestError | None = None
        self.closed = False
        self._requests = RequestStream(client_id)
        self._responses = ResponseStream(is_ready)
        self._received_bytes = 0
        self._unsent_bytes = unsent_bytes
        self._timer = PhaseTimer(limits, time.monotonic)

    def receive_from_client(self, received: bytes) -> bytes:
        """Process bytes from the client; return the bytes for TorchServe."""
        self._received_bytes += len(received)
        forwarded = self._requests.feed(received, time.monotonic())
        if self._requests.passthrough:
            self._responses.max_parsed = self._requests.requests
        return forwarded

    def receive_from_server(self, received: bytes) -> bytes:
        """Process bytes from TorchServe; return the bytes for the client."""
        self._received_bytes += len(received)
        return self._responses.feed(received)

    def final_response(self, error: RequestError) -> bytes:
        """Return the last bytes for the client: the rest of a response, or `error` in its place."""
        if rest := self._responses.buffered():
            return rest
        pending = self.error or (error if self._awaits_response else None)
        if pending is None or self._responses.passthrough or self._responses.in_body:
            return b""
        return error_response(pending, CONNECTION_CLOSE)

    @property
    def request_line(self) -> bytes:
        """The start line of the last request."""
        return self._requests.request_line

    @property
    def is_finished(self) -> bool:
        """True if the request with `Connection: close` has got its response.

        TorchServe keeps connections open after a successful response, whatever the client requests.
        """
        last_request = self._requests.last_request
        return last_request is not None and self._responses.responses >= last_request

    @property
    def is_busy(self) -> bool:
        """True if a request is in progress, or its response is still being sent."""
        if self._unsent_bytes() > 0:
            return True
        return not self.closed and (self._requests.passthrough or self._awaits_response)

    @property
    def phase(self) -> Phase:
        """The event that the connection waits for."""
        if self.closed:
            return Phase.CLOSING
        if self._requests.passthrough:
            return Phase.PASSTHROUGH
        if self._requests.in_body:
            return Phase.REQUEST_BODY
        if self._unsent_bytes():
            return Phase.DELIVERY
        if self._awaits_response:
            return Phase.RESPONSE
        if self._requests.in_head:
            return Phase.REQUEST_HEAD
        return Phase.NEXT_REQUEST if self._requests.requests else Phase.FIRST_REQUEST

    @property
    def last_progress(self) -> float:
        """Time of the last progress, by `time.monotonic`."""
        return self._timer.last_progress

    def is_timed_out(self) -> bool:
        """True if the client has exceeded a timeout; call at least once a second."""
        phase = self.phase
        messages = self._requests.requests + self._responses.responses
        transferred_bytes = self._received_bytes - self._unsent_bytes()
        if not self._timer.is_timed_out(phase, messages, transferred_bytes):
            return False
        if phase is Phase.REQUEST_HEAD or (phase is Phase.REQUEST_BODY and self._awaits_response):
            self.error = incomplete_request()
        return True

    @property
    def _awaits_response(self) -> bool:
        return self._requests.requests > self._responses.responses
