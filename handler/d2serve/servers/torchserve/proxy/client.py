"""A client's connection: strict HTTP/1.1 (RFC 9112), and a fair share of the process's time."""

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from typing import TypeAlias

import h11

from d2serve.errors import client_closed
from d2serve.messages import MAX_HEAD_BYTES
from d2serve.servers.strict_http import StrictConnection, find_head_end

CHUNK_BYTES = 1 << 18
# A client that sends many small pieces, such as chunks of one byte, costs more than it transfers:
# after TURN_PIECES of them it pauses, so that it takes a small part of this process's time.
SMALL_BYTES = 1024
TURN_PIECES = 16
PAUSE_S = 0.002
# A client that still sends gets this long to read its final response before the connection closes.
LINGER_S = 2.0
# States of a client whose request has not been received to its end.
INCOMPLETE = (h11.IDLE, h11.SEND_BODY, h11.ERROR)
Event: TypeAlias = h11.Data | h11.EndOfMessage


class ClientProtocol(asyncio.StreamReaderProtocol):
    """Notices that the client has closed its sending side, even while nothing is read.

    Attributes:
        disconnected: done as soon as that has happened.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def eof_received(self) -> bool | None:
        """The client sends nothing more."""
        self._disconnect()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed or broken."""
        self._disconnect()
        super().connection_lost(exc)

    def _disconnect(self) -> None:
        if not self.disconnected.done():
            self.disconnected.set_result(None)


class Client:
    """One client's connection, a request at a time.

    Attributes:
        http: the state of the current request and its response.
        disconnected: done when the client has closed its sending side. That counts as a disconnect,
            because TorchServe does not respond to such a client either.
        arrived: time of the first byte of the current request, by `time.monotonic`.
        in_head: whether a head has begun and is incomplete.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ClientProtocol
    ) -> None:
        self.http = StrictConnection(MAX_HEAD_BYTES)
        self.disconnected = protocol.disconnected
        self.arrived = 0.0
        self.in_head = False
        self._reader = reader
        self._writer = writer
        self._transferred_bytes = 0
        self._pending = bytearray()
        self._is_head = False
        self._small_pieces = 0

    @classmethod
    async def accept(cls, client: socket.socket, tls: ssl.SSLContext | None) -> "Client":
        """Open streams to an accepted client, after the handshake if `tls` is given.

        Raises:
            OSError: the client has disconnected or does not speak TLS.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = ClientProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop), protocol)

    @property
    def has_complete_request(self) -> bool:
        """True if the current request has been received to its end."""
        return not self.http.error and self.http.their_state not in INCOMPLETE

    @property
    def can_continue(self) -> bool:
        """True if another request may follow the current response."""
        states = {self.http.our_state, self.http.their_state}
        return not self.http.error and states == {h11.DONE}

    @property
    def unsent_bytes(self) -> int:
        """Number of bytes that the client has not read yet."""
        try:
            return self._writer.transport.get_write_buffer_size()
        except AttributeError:  # Python 3.10, after a TLS connection was lost
            return 0

    @property
    def transferred_bytes(self) -> int:
        """Number of bytes received and delivered so far."""
        return self._transferred_bytes - self.unsent_bytes

    async def receive_head(self) -> h11.Request | None:
        """Receive the head of the next request; None if the client disconnects before it.

        Raises:
            RequestError: the head is malformed or too large, or the client disconnects.
        """
        self.http = StrictConnection(MAX_HEAD_BYTES)
        if self._pending:  # pipelined requests are answered one after the other, with pauses
            await asyncio.sleep(PAUSE_S)
        self._small_pieces = 0
        self.arrived = time.monotonic()
        head = await self._read_head()
        self.in_head = False
        if not head:
            return None
        self.http.receive_data(head)
        request = self._parse()
        assert isinstance(request, h11.Request)
        self._is_head = request.method == b"HEAD"
        if not self.http.is_chunked and dict(request.headers).get(b"content-length", b"0") == b"0":
            self._parse()  # the end of the request
        return request

    async def receive(self) -> Event:
        """Receive a part of the request's body, or its end.

        Raises:
            RequestError: the body is malformed, or the client disconnects.
        """
        if self.has_complete_request:
            return h11.EndOfMessage()
        while (event := self._parse()) is h11.NEED_DATA:
            received = bytes(self._pending) or await self._read()
            self._pending.clear()
            if not received:
                raise client_closed()
            self.http.receive_data(received)
        if isinstance(event, h11.EndOfMessage):
            self._pending[:0], _ = self.http.trailing_data  # the next request's bytes
            return event
        assert isinstance(event, h11.Data)
        await self._take_turn(len(event.data))
        return event

    async def send(self, *events: h11.InformationalResponse | h11.Response | Event) -> None:
        """Send parts of a response; return when the client has room for more.

        The response to a HEAD is sent without its body.

        Raises:
            OSError: the client has disconnected.
        """
        sent = [each for each in events if not (self._is_head and isinstance(each, h11.Data))]
        encoded = b"".join(self.http.send(each) or b"" for each in sent)
        self._transferred_bytes += len(encoded)
        self._writer.write(encoded)
        await self._writer.drain()

    async def finish(self) -> None:
        """End the sending side; give a client that still sends time to read its response.

        Closing a connection with unread bytes resets it, and the client may lose the response.
        """
        if self.has_complete_request and not self._pending:
            return
        with suppress(OSError):
            if self._writer.can_write_eof():  # not possible with TLS, which can only close
                self._writer.write_eof()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._discard(), LINGER_S)

    async def close(self) -> None:
        """Close the connection when the client has read everything; at once if cancelled."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except asyncio.CancelledError:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, so that the client notices an incomplete response."""
        self._writer.transport.abort()

    async def _read_head(self) -> bytes:
        scanned = 0
        while True:
            while self._pending.startswith(b"\r\n"):  # some clients end a body with an empty line
                del self._pending[:2]
            self.in_head = bool(self._pending)
            if size := find_head_end(self._pending, MAX_HEAD_BYTES, scanned):
                head = bytes(self._pending[:size])
                del self._pending[:size]
                return head
            scanned = len(self._pending)
            received = await self._read()
            if not received:
                return b""
            if not self._pending:
                self.arrived = time.monotonic()
            self._pending += received
            await self._take_turn(len(received))

    def _parse(self) -> object:
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as error:
            assert self.http.error
            raise self.http.error from error

    async def _read(self) -> bytes:
        received = await self._reader.read(CHUNK_BYTES)
        self._transferred_bytes += len(received)
        return received

    async def _discard(self) -> None:
        while await self._read():
            pass

    async def _take_turn(self, size: int) -> None:
        """Let other connections run; delay a client that sends small pieces."""
        if size >= SMALL_BYTES:
            await asyncio.sleep(0)
            return
        self._small_pieces += 1
        if self._small_pieces % TURN_PIECES == 0:
            await asyncio.sleep(PAUSE_S)
