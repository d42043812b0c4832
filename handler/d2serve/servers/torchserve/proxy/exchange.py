"""One request of a client and its response, from TorchServe or from the proxy itself."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

import h11

from d2serve.errors import CLIENT_CLOSED_REQUEST, RequestError, client_closed
from d2serve.messages import NO_STAGES, is_open_inference
from d2serve.servers.body_memory import HeldBody
from d2serve.servers.torchserve.proxy.client import Client
from d2serve.servers.torchserve.proxy.context import ProxyContext
from d2serve.servers.torchserve.proxy.errors import (
    MAX_ERROR_BYTES,
    body_too_large,
    error_body,
    not_ready,
    translate_error,
)
from d2serve.servers.torchserve.proxy.events import METHODS, OK, OTHER, RequestFacts
from d2serve.servers.torchserve.proxy.forwarding import ARRIVED_HEADER, CLIENT_HEADER, forwarded
from d2serve.servers.torchserve.proxy.limits import Phase
from d2serve.servers.torchserve.proxy.routes import LIVE, Destination, path_of
from d2serve.servers.torchserve.proxy.upstream import Field, Upstream, end_to_end

# Parts of a body are collected up to this size, so that TorchServe never receives tiny ones.
FORWARD_BYTES = 1 << 16
Connect: TypeAlias = Callable[[], Awaitable[Upstream]]
CLOSE = (b"connection", b"close")
TIMING = (b"server-timing", NO_STAGES.encode())
# TorchServe sends these where its own settings permit origins.
CORS_FIELDS = b"access-control-"
CONTINUE = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


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
        self._permission: list[Field] = []

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
        if (preflight := self._preflight(head)) is not None:
            await self._client.receive()
            await self._send(HTTPStatus.OK, b"", preflight)
            return
        destination = self._find(head)
        if destination.route.template == LIVE:
            await self._client.receive()
            await self._send_document(destination)
            return
        with self._context.bodies.hold(self._context.limits.queued_bytes) as held:
            held.require(_declared_length(head))
            upstream = await connect()
            if self._client.http.they_are_waiting_for_100_continue:
                await self._client.send(CONTINUE)
            response = await self._await_response(upstream, head, destination, held)
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
            body = error_body(error, self._is_open_inference)
            await self._send_json(error.status, body, [TIMING, *_fields(error.headers)])

    def _preflight(self, head: h11.Request) -> list[Field] | None:
        """The fields of the response to a browser's preflight request; None for another one.

        Raises:
            RequestError: 400, the web page may not send the request.
        """
        method = head.method.decode("ascii")
        self._facts.method = method if method in METHODS else OTHER
        self._facts.started = self._client.arrived
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        self._permission = _fields(self._context.cors.headers(headers.get("origin")))
        preflight = self._context.cors.preflight(method, headers)
        if preflight is None:
            return None
        self._permission = []
        return _fields(preflight)

    def _find(self, head: h11.Request) -> Destination:
        """Find the route of a request and check the limits."""
        self._is_open_inference = is_open_inference(path_of(head.target.decode("ascii")))
        destination = Destination.of(head)
        self._facts.route = destination.route.template
        self.phase = Phase.REQUEST_BODY
        if not destination.route.is_health_check:
            self._context.check_capacity()
        if _declared_length(head) > self._context.limits.request_bytes:
            raise body_too_large()
        return destination

    async def _await_response(
        self, upstream: Upstream, head: h11.Request, destination: Destination, held: HeldBody
    ) -> h11.Response:
        """Send the request; return the head of the response, which may arrive before its end."""
        own_fields = [
            (ARRIVED_HEADER.encode(), b"%.6f" % self._client.arrived),
            (CLIENT_HEADER.encode(), b"%d" % self._client_id),
        ]
        request = forwarded(head, destination, self._context.models, own_fields)
        counted = held if destination.route.is_inference else None
        upload = asyncio.create_task(self._upload(upstream, request, counted))
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

    async def _upload(
        self, upstream: Upstream, request: h11.Request, held: HeldBody | None
    ) -> None:
        """Send the request, and count its body in `held`; without it, drop the body."""
        await upstream.send(request)
        collected = bytearray()
        while isinstance(event := await self._client.receive(), h11.Data):
            self._facts.body_bytes += len(event.data)
            if self._facts.body_bytes > self._context.limits.request_bytes:
                raise body_too_large()
            if held:
                held.grow_to(self._facts.body_bytes)
                collected += event.data
            if len(collected) >= FORWARD_BYTES:
                await upstream.send(h11.Data(data=bytes(collected)))
                collected.clear()
        self._reached_worker = held is not None
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
        fields = [
            (name, value)
            for name, value in end_to_end(response.headers)
            if not (self._permission and name.startswith(CORS_FIELDS))
        ]
        fields += [*self._permission, *self._closing()]
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
        own = {"content-type": "application/json", "x-request-id": self._facts.request_id}
        await self._send(status, body, [*_fields(own), *fields])

    async def _send(self, status: int, body: bytes, fields: Sequence[Field]) -> None:
        all_fields = [
            (b"content-length", b"%d" % len(body)),
            *fields,
            *self._permission,
            *self._closing(),
        ]
        reason = HTTPStatus(status).phrase.encode("ascii")
        response = h11.Response(status_code=status, headers=all_fields, reason=reason)
        await self._client.send(response, h11.Data(data=body), h11.EndOfMessage())

    def _closing(self) -> list[Field]:
        """The field for a connection that closes after this response."""
        continues = self._client.has_complete_request and not self._context.is_stopping
        return [] if continues else [CLOSE]


def _declared_length(head: h11.Request) -> int:
    lengths = [int(value) for name, value in head.headers if name == b"content-length"]
    return max(lengths, default=0)


def _fields(headers: Mapping[str, str]) -> list[Field]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _read(upstream: Upstream, limit: int = sys.maxsize) -> bytes:
    """Read a response's body to its end, or until at least `limit` bytes have arrived."""
    body = bytearray()
    while len(body) < limit and (part := await upstream.receive_body()):
        body += part
    return bytes(body)
