"""One request of a client and its response, from TorchServe or from the proxy itself."""

import asyncio
import json
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import h11

from d2serve.errors import CLIENT_CLOSED_REQUEST, RequestError, client_closed
from d2serve.servers.torchserve.proxy.client import Client
from d2serve.servers.torchserve.proxy.errors import (
    MAX_ERROR_BYTES,
    body_too_large,
    error_body,
    not_ready,
    translate_error,
)
from d2serve.servers.torchserve.proxy.events import METHODS, OK, OTHER, RequestFacts
from d2serve.servers.torchserve.proxy.limits import Limits, Phase
from d2serve.servers.torchserve.proxy.routes import (
    ARRIVED_HEADER,
    CLIENT_HEADER,
    LIVE,
    Destination,
    is_open_inference,
)
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, ModelState
from d2serve.servers.torchserve.proxy.upstream import Address, Field, Upstream, end_to_end

# Parts of a body are collected up to this size, so that TorchServe never receives tiny ones.
FORWARD_BYTES = 1 << 16
Connect: TypeAlias = Callable[[], Awaitable[Upstream]]
CLOSE = (b"connection", b"close")
CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


class ProxyContext(Protocol):
    """The proxy state that connections need.

    Attributes:
        upstream: TorchServe's address.
        tls: the server's TLS configuration; None for plain HTTP.
        limits: limits for clients.
        disconnects: receives the ids of clients that have disconnected.
    """

    upstream: Address
    tls: ssl.SSLContext | None
    limits: Limits
    disconnects: DisconnectTable

    @property
    def is_stopping(self) -> bool:
        """True if connections close after the current request."""

    def models(self) -> Mapping[str, ModelState]:
        """The models that TorchServe serves, by name."""

    def is_ready(self) -> bool:
        """True if any worker can take requests."""

    def check_capacity(self) -> None:
        """Raise a RequestError if a request in progress exceeds the limit."""

    def report(self, entry: dict[str, Any]) -> None:
        """Log and count a response that no worker has made."""


class Exchange:
    """A request and its response.

    Args:
        client: the client's connection.
        context: the proxy.
        client_id: the connection's id in the disconnect table.

    Attributes:
        phase: the event that the exchange waits for.
    """

    def __init__(self, client: Client, context: ProxyContext, client_id: int) -> None:
        self.phase = Phase.REQUEST_HEAD
        self._client = client
        self._context = context
        self._client_id = client_id
        self._is_open_inference = False
        self._reached_worker = False
        self._facts = RequestFacts()

    async def respond(self, head: h11.Request, connect: Connect) -> None:
        """Respond to a request.

        Args:
            head: the request's head.
            connect: opens a connection to TorchServe.

        Raises:
            RequestError: the response is an error that no worker has made.
            UpstreamError: TorchServe does not respond.
            OSError: the client has disconnected.
        """
        destination = self._find(head)
        if destination.route.template == LIVE:
            await self._client.receive()
            await self._send_document(destination)
            return
        upstream = await connect()
        if self._client.http.they_are_waiting_for_100_continue:
            await self._client.send(CONTINUE)
        response = await self._await_response(upstream, head, destination)
        self.phase = Phase.DELIVERY
        beginning = await self._check_error(upstream, response, destination)
        if not destination.route.is_inference and not self._context.is_ready():
            raise not_ready()
        if destination.route.document:
            if response.status_code != HTTPStatus.OK:
                raise not_ready()
            await _read(upstream)
            await self._send_document(destination)
        else:
            await self._deliver(upstream, response, beginning)

    async def refuse(self, error: RequestError) -> None:
        """Respond with an error, or close the connection if the response has begun already."""
        if not (self._reached_worker and error.status == CLIENT_CLOSED_REQUEST):
            self._context.report(self._facts.entry(error.status, error.code))
        if error.status == CLIENT_CLOSED_REQUEST:
            self._context.disconnects.mark(self._client_id)
        if self._client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._client.abort()
        elif error.status != CLIENT_CLOSED_REQUEST:
            self.phase = Phase.DELIVERY
            fields = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            body = error_body(error, self._is_open_inference)
            await self._send_json(error.status, body, fields)

    def _find(self, head: h11.Request) -> Destination:
        """Find the route of a request and check the limits."""
        method = head.method.decode("ascii")
        self._facts.method = method if method in METHODS else OTHER
        self._facts.started = self._client.arrived
        self._is_open_inference = is_open_inference(head.target)
        destination = Destination.of(head)
        self._facts.route = destination.route.template
        self.phase = Phase.REQUEST_BODY
        if not destination.route.is_health_check:
            self._context.check_capacity()
        lengths = [int(value) for name, value in head.headers if name == b"content-length"]
        if max(lengths, default=0) > self._context.limits.request_bytes:
            raise body_too_large()
        return destination

    async def _await_response(
        self, upstream: Upstream, head: h11.Request, destination: Destination
    ) -> h11.Response:
        """Send the request; return the head of the response, which may arrive before its end."""
        own_fields = [
            (ARRIVED_HEADER.encode(), b"%.6f" % self._client.arrived),
            (CLIENT_HEADER.encode(), b"%d" % self._client_id),
        ]
        forwarded = destination.forward(head, self._context.models, own_fields)
        has_body = destination.route.is_inference
        upload = asyncio.create_task(self._upload(upstream, forwarded, has_body))
        response = asyncio.create_task(upstream.receive_head())
        pending: set[asyncio.Future[Any]] = {upload, response, self._client.disconnected}
        try:
            while not response.done():
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if upload.done() and upload in pending:
                    upload.result()
                    pending.remove(upload)
                    self.phase = Phase.RESPONSE
                if self._client.disconnected.done() and not response.done():
                    raise client_closed()
            return response.result()
        finally:
            # Both must have ended before the socket is closed or used for another request.
            for task in (upload, response):
                task.cancel()
            await asyncio.gather(upload, response, return_exceptions=True)

    async def _upload(self, upstream: Upstream, forwarded: h11.Request, has_body: bool) -> None:
        """Send the request; drop the body of one that no worker receives."""
        await upstream.send(forwarded)
        collected = bytearray()
        while isinstance(event := await self._client.receive(), h11.Data):
            self._facts.body_bytes += len(event.data)
            if self._facts.body_bytes > self._context.limits.request_bytes:
                raise body_too_large()
            if has_body:
                collected += event.data
            if len(collected) >= FORWARD_BYTES:
                await upstream.send(h11.Data(data=bytes(collected)))
                collected.clear()
        self._reached_worker = has_body
        await upstream.send(h11.Data(data=bytes(collected)), h11.EndOfMessage())

    async def _check_error(
        self, upstream: Upstream, response: h11.Response, destination: Destination
    ) -> bytes:
        """Raise TorchServe's own error as the contract's; return what has been read of the body."""
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return b""
        body = await _read(upstream, MAX_ERROR_BYTES)
        error = translate_error(response.status_code, body) if len(body) < MAX_ERROR_BYTES else None
        if error is None:
            return body
        self._reached_worker = False
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            error.headers["Allow"] = ", ".join(destination.route.methods)
        raise error

    async def _deliver(self, upstream: Upstream, response: h11.Response, body: bytes) -> None:
        """Send TorchServe's response, of whose body `body` has been read already."""
        fields = [*end_to_end(response.headers), *self._closing()]
        head = h11.Response(
            status_code=response.status_code, headers=fields, reason=response.reason
        )
        body = body or await upstream.receive_body()
        await self._client.send(head, h11.Data(data=body))
        while body := await upstream.receive_body():
            await self._client.send(h11.Data(data=body))
        await self._client.send(h11.EndOfMessage())

    async def _send_document(self, destination: Destination) -> None:
        document = destination.document(self._context.models())
        self._context.report(self._facts.entry(HTTPStatus.OK, OK))
        await self._send_json(HTTPStatus.OK, json.dumps(document).encode("ascii"), [])

    async def _send_json(self, status: int, body: bytes, fields: Sequence[Field]) -> None:
        all_fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *fields,
            *self._closing(),
        ]
        reason = HTTPStatus(status).phrase.encode("ascii")
        response = h11.Response(status_code=status, headers=all_fields, reason=reason)
        await self._client.send(response, h11.Data(data=body), h11.EndOfMessage())

    def _closing(self) -> list[Field]:
        """The field for a connection that closes after this response."""
        continues = self._client.has_complete_request and not self._context.is_stopping
        return [] if continues else [CLOSE]


async def _read(upstream: Upstream, limit: int = sys.maxsize) -> bytes:
    """Read a response's body to its end, or until at least `limit` bytes have arrived."""
    body = bytearray()
    while len(body) < limit and (part := await upstream.receive_body()):
        body += part
    return bytes(body)
