"""A connection to TorchServe."""

import asyncio
import socket
from collections.abc import Sequence
from typing import TypeAlias

import h11

Address: TypeAlias = tuple[str, int]
Field: TypeAlias = tuple[bytes, bytes]
CHUNK_BYTES = 1 << 18
# Fields that concern one connection only (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"proxy-authenticate", b"proxy-authorization"),
    )
)


class UpstreamError(Exception):
    """TorchServe closed the connection or sent something that is not HTTP."""


def end_to_end(fields: Sequence[Field]) -> list[Field]:
    """The fields that a proxy forwards: not HOP_BY_HOP, and not those that Connection names."""
    options = b",".join(value for name, value in fields if name == b"connection")
    dropped = HOP_BY_HOP | {option.strip().lower() for option in options.split(b",")}
    return [(name, value) for name, value in fields if name not in dropped]


class Upstream:
    """A connection to TorchServe whose two directions end independently.

    A server that rejects a request before reading all of it sends its response and resets the
    connection. An asyncio transport that notices the reset while sending drops the response, so
    this uses a plain socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT)
        self._can_send = True

    @classmethod
    async def connect(cls, address: Address) -> "Upstream":
        """Open a connection.

        Raises:
            UpstreamError: nothing listens there.
        """
        host, _ = address
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(connection, address)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise UpstreamError(str(error)) from error
            raise
        return cls(connection)

    async def send(self, *events: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send parts of a request; drop them if the server has closed the connection."""
        encoded = b"".join(self._http.send(event) or b"" for event in events)
        try:
            if self._can_send:
                await self._loop.sock_sendall(self._socket, encoded)
        except OSError:
            self._can_send = False

    async def receive_head(self) -> h11.Response:
        """Receive the head of the final response.

        Raises:
            UpstreamError: the connection ended before.
        """
        while not isinstance(event := await self._receive(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise UpstreamError("the connection was closed before the response")
        return event

    async def receive_body(self) -> bytes:
        """Receive the next part of the response's body; empty at its end.

        Raises:
            UpstreamError: the connection ended before.
        """
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        event = await self._receive()
        # The socket may always have more, and then `sock_recv` does not let other tasks run.
        await asyncio.sleep(0)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def try_reuse(self) -> bool:
        """Prepare for another request; False if that needs another connection."""
        if {self._http.our_state, self._http.their_state} != {h11.DONE} or not self._can_send:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self._http.start_next_cycle()
            return True
        except OSError:
            return False
        return False  # the server has closed the connection

    def close(self) -> None:
        """Free the socket; no `receive_head`, `receive_body` or `send` may be pending."""
        self._socket.close()

    async def _receive(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._loop.sock_recv(self._socket, CHUNK_BYTES))
        except (OSError, h11.RemoteProtocolError) as error:
            raise UpstreamError(str(error)) from error
        return event
