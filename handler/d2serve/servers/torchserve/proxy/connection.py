"""One client connection through the proxy to TorchServe and back."""

import asyncio
import socket
import ssl
from contextlib import closing, suppress
from typing import Protocol

from d2serve.errors import RequestError, internal
from d2serve.servers.torchserve.proxy.connection_state import CONNECTION_CLOSE, ConnectionState
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.responses import error_response, not_ready
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable
from d2serve.servers.torchserve.proxy.sockets import (
    CHUNK_BYTES,
    Address,
    Upstream,
    discard,
    open_streams,
    unsent_bytes,
)

LINGER_S = 2.0


class ProxyContext(Protocol):
    """The proxy state that a connection needs.

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

    def is_ready(self) -> bool:
        """True if any worker can take requests."""

    def check_capacity(self, request_line: bytes) -> None:
        """Raise a RequestError if a request with this start line exceeds the limit."""


class Connection:
    """Forwards bytes in both directions between a client and TorchServe.

    The connection to TorchServe is opened when the first request head is complete.

    Args:
        client: the accepted connection.
        context: the proxy that accepted it.

    Attributes:
        state: what has been received and sent.
    """

    def __init__(self, client: socket.socket, context: ProxyContext) -> None:
        self._client = client
        self._context = context
        self._writer: asyncio.StreamWriter | None = None
        self._client_id = context.disconnects.next_id()
        self.state = ConnectionState(
            self._client_id, context.is_ready, context.limits, self._unsent_bytes
        )

    async def run(self) -> None:
        """Serve the connection until one side closes it.

        A request without a response gets an error. When the task is cancelled, the error gives the
        reason: the client timed out, or no worker is ready. A second cancellation does not wait
        until the client has read it.
        """
        # An OSError is a disconnect; closing informs the other side.
        with suppress(OSError), closing(self._client):
            reader, writer = await open_streams(self._client, self._context.tls)
            self._writer = writer
            try:
                await self._serve(reader, writer)
            except RequestError as error:
                self._finish(writer, error_response(error, CONNECTION_CLOSE))
                await linger(asyncio.create_task(discard(reader)))
            except asyncio.CancelledError:
                self._finish(writer, self.state.final_response(not_ready()))
            finally:
                self._context.disconnects.mark(self._client_id)
                await self._close(writer)

    def _unsent_bytes(self) -> int:
        return unsent_bytes(self._writer) if self._writer else 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward bytes in both directions.

        Raises:
            RequestError: the first request cannot be forwarded.
        """
        first_bytes = await self._read_first_head(reader)
        if not first_bytes:
            return
        try:
            server = await Upstream.connect(*self._context.upstream)
        except OSError:
            raise not_ready() from None
        with closing(server):
            upload = asyncio.create_task(self._upload(first_bytes, reader, server))
            try:
                await self._download(server, writer)
                self._finish(writer, self.state.final_response(internal()))
                await linger(upload)
            finally:
                upload.cancel()
                # It must have ended before its socket is closed.
                await asyncio.wait({upload})

    async def _read_first_head(self, reader: asyncio.StreamReader) -> bytes:
        """Return the first bytes for TorchServe; empty if the client disconnects before."""
        while received := await reader.read(CHUNK_BYTES):
            if forwarded := self._receive(received):
                return forwarded
        return b""

    async def _upload(
        self, first_bytes: bytes, reader: asyncio.StreamReader, server: Upstream
    ) -> None:
        """Forward requests until the client disconnects.

        A client that closes only its sending side counts as disconnected, because TorchServe does
        not respond to it either.
        """
        try:
            await server.send(first_bytes)
            while received := await reader.read(CHUNK_BYTES):
                await self._forward(received, server)
        except OSError:
            server.shut_down()
        else:
            server.shut_down_sending()
        self._context.disconnects.mark(self._client_id)

    async def _forward(self, received: bytes, server: Upstream) -> None:
        try:
            forwarded = self._receive(received)
        except RequestError as error:
            self.state.error = error
            server.shut_down()
        else:
            await server.send(forwarded)

    def _receive(self, received: bytes) -> bytes:
        """Process bytes from the client; return the bytes for TorchServe.

        Raises:
            RequestError: they begin a request that exceeds the connection limit.
        """
        was_busy = self.state.is_busy
        forwarded = self.state.receive_from_client(received)
        if self.state.is_busy and not was_busy:
            self._context.check_capacity(self.state.request_line)
        return forwarded

    async def _download(self, server: Upstream, writer: asyncio.StreamWriter) -> None:
        """Forward responses until TorchServe closes the connection or it is finished."""
        with suppress(OSError):
            while not self.state.is_finished and (received := await server.read()):
                writer.write(self.state.receive_from_server(received))
                await writer.drain()

    def _finish(self, writer: asyncio.StreamWriter, final_response: bytes) -> None:
        if self.state.closed:
            return
        self.state.closed = True
        writer.write(final_response)
        if writer.can_write_eof():  # not possible with TLS, which can only close
            writer.write_eof()

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self.state.closed = True
        writer.close()
        try:
            await writer.wait_closed()  # the client may read its response slowly
        except asyncio.CancelledError:
            writer.transport.abort()


async def linger(reading: "asyncio.Task[None]") -> None:
    """Give a client that still sends time to read its final response before the close."""
    try:
        await asyncio.wait({reading}, timeout=LINGER_S)
    finally:
        reading.cancel()
