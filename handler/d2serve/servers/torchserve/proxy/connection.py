"""One client connection: its requests, one after the other, and what ends it."""

import asyncio
import socket
import time
from contextlib import suppress

from d2serve.errors import RequestError, client_closed, internal
from d2serve.servers.torchserve.proxy.client import Client
from d2serve.servers.torchserve.proxy.context import ProxyContext
from d2serve.servers.torchserve.proxy.errors import incomplete_request, no_response, not_ready
from d2serve.servers.torchserve.proxy.exchange import Exchange
from d2serve.servers.torchserve.proxy.limits import BUSY_PHASES, IDLE_PHASES, Phase, PhaseTimer
from d2serve.servers.torchserve.proxy.upstream import Upstream, UpstreamError

TIMEOUT_ERRORS = {
    Phase.REQUEST_HEAD: incomplete_request,
    Phase.REQUEST_BODY: incomplete_request,
    Phase.RESPONSE: no_response,
    Phase.DELIVERY: client_closed,
}


class Connection:
    """Serves the requests of one client.

    The connection to TorchServe is opened for the first request and kept for the next ones.

    Args:
        client: the accepted connection.
        context: the proxy that accepted it.
    """

    def __init__(self, client: socket.socket, context: ProxyContext) -> None:
        self._socket = client
        self._context = context
        self._client: Client | None = None
        self._exchange: Exchange | None = None
        self._upstream: Upstream | None = None
        self._client_id = context.disconnects.next_id()
        self._idle_phase = Phase.FIRST_REQUEST
        self._requests = 0
        self._timer = PhaseTimer(context.limits, time.monotonic)
        self._end_error: RequestError | None = None

    @property
    def phase(self) -> Phase:
        """The event that the connection waits for."""
        if self._exchange:
            return self._exchange.phase
        if self._client and self._client.unsent_bytes:
            return Phase.DELIVERY
        if self._client and self._client.in_head:
            return Phase.REQUEST_HEAD
        return self._idle_phase

    @property
    def is_idle(self) -> bool:
        """True if no part of a request has arrived."""
        return self.phase in IDLE_PHASES

    @property
    def is_busy(self) -> bool:
        """True if a request is in progress, or its response is still being sent."""
        return self.phase in BUSY_PHASES

    @property
    def last_progress(self) -> float:
        """Time of the last progress, by `time.monotonic`."""
        return self._timer.last_progress

    def is_timed_out(self) -> bool:
        """True if the client or TorchServe has exceeded a timeout; call at least once a second."""
        phase = self.phase
        transferred = self._client.transferred_bytes if self._client else 0
        if not self._timer.is_timed_out(phase, self._requests, transferred):
            return False
        if phase in TIMEOUT_ERRORS:
            self._end_error = TIMEOUT_ERRORS[phase]()
        return True

    async def run(self) -> None:
        """Serve the connection until one side closes it.

        When the task is cancelled, a request without a response gets an error with the reason: the
        client timed out, or no worker is ready. A second one closes the connection at once.
        """
        # An OSError is a disconnect.
        with suppress(OSError):
            try:
                self._client = await Client.accept(self._socket, self._context.tls)
                await self._serve(self._client)
            finally:
                self._context.disconnects.mark(self._client_id)
                self._drop_upstream()
                self._socket.close()

    async def _serve(self, client: Client) -> None:
        try:
            while await self._serve_request(client):
                self._exchange, self._idle_phase = None, Phase.NEXT_REQUEST
            await client.finish()
        except asyncio.CancelledError:
            if not self.is_idle:
                exchange = self._exchange or Exchange(client, self._context, self._client_id)
                await exchange.refuse(self._end_error or not_ready())
                await client.finish()
        finally:
            self._exchange, self._idle_phase = None, Phase.CLOSING
            await client.close()

    async def _serve_request(self, client: Client) -> bool:
        """Serve the next request; False if the connection must close."""
        exchange = Exchange(client, self._context, self._client_id)
        try:
            head = await client.receive_head()
            if head is None:
                return False
            self._exchange = exchange
            self._requests += 1
            await exchange.respond(head, self._connect)
        except RequestError as error:
            await exchange.refuse(error)
        except UpstreamError:
            await exchange.refuse(internal() if self._context.is_ready() else not_ready())
        return client.can_continue

    async def _connect(self) -> Upstream:
        """The connection to TorchServe of the last request, or else another one."""
        if not (self._upstream and self._upstream.try_reuse()):
            self._drop_upstream()
            self._upstream = await Upstream.connect(self._context.upstream)
        return self._upstream

    def _drop_upstream(self) -> None:
        if self._upstream:
            self._upstream.close()
        self._upstream = None
