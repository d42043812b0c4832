"""One client connection through the proxy to TorchServe and back."""

import asyncio
import socket
import ssl
from contextlib import closing, suppress

from d2serve.errors import RequestError, internal
from d2serve.servers.torchserve.proxy.connection_state import LAST, Dialogue
from d2serve.servers.torchserve.proxy.context import House
from d2serve.servers.torchserve.proxy.responses import error_response, not_ready

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 1 << 18
LINGER_S = 2.0


async def open_streams(client: socket.socket, tls: ssl.SSLContext | None) -> Streams:
    """Reads from and writes to a client, after the handshake where there is TLS.

    Raises:
        OSError: the client has gone or does not speak TLS.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def untaken_bytes(writer: asyncio.StreamWriter) -> int:
    """How much of what was written has not gone out yet, because the other side does not read."""
    try:
        return writer.transport.get_write_buffer_size()
    except AttributeError:  # Python 3.10, where a connection with TLS has been lost
        return 0


async def discard(reader: asyncio.StreamReader) -> None:
    """Reads to the end for nothing."""
    with suppress(OSError):
        while await reader.read(CHUNK_BYTES):
            pass


async def linger(reading: "asyncio.Task[None]") -> None:
    """Lets a client read its last answer, which one that still sends loses with the connection."""
    try:
        await asyncio.wait({reading}, timeout=LINGER_S)
    finally:
        reading.cancel()


class Upstream:
    """Bytes to TorchServe and back, neither of which ends the other.

    A server that refuses a request before it has read it answers, and resets the connection. An
    asyncio transport that notices this as it sends drops what it has not read yet, so this is a
    plain socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._sends = True

    @classmethod
    async def connected(cls, host: str, port: int) -> "Upstream":
        """A new connection.

        Raises:
            OSError: nobody listens there.
        """
        connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def send(self, data: bytes) -> None:
        """Returns when all of it is on its way, or the server has gone: then nothing is sent."""
        try:
            if self._sends:
                await self._loop.sock_sendall(self._socket, data)
        except OSError:
            self._sends = False

    async def read(self) -> bytes:
        """What comes next; empty at the end.

        Raises:
            OSError: the connection broke, and all that had come before has been read.
        """
        return await self._loop.sock_recv(self._socket, CHUNK_BYTES)

    def end(self) -> None:
        """Says that nothing more will be sent."""
        self._shut(socket.SHUT_WR)

    def shut(self) -> None:
        """Ends both directions: a reader that waits has come to the end."""
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees the socket; nobody may wait for it any more."""
        self._socket.close()

    def _shut(self, how: int) -> None:
        with suppress(OSError):
            self._socket.shutdown(how)


class Connection:
    """Passes bytes both ways between a client and TorchServe.

    TorchServe hears of a client when its first request's head is there.

    Args:
        client: the accepted connection.
        house: where it came in.

    Attributes:
        dialogue: what has been said on it.
    """

    def __init__(self, client: socket.socket, house: House) -> None:
        self._client = client
        self._house = house
        self._writer: asyncio.StreamWriter | None = None
        self._number = house.departures.next_number()
        self.dialogue = Dialogue(self._number, house.is_ready, house.limits, self._untaken)

    async def run(self) -> None:
        """Until one side has gone; a request that TorchServe leaves unanswered gets an error.

        When the task is cancelled, a request that waits is told why: its client stalls, or no
        worker is ready. Cancelled once more, the client's end is not waited for.
        """
        # A side that is gone ends the connection, and closing tells the other side.
        with suppress(OSError), closing(self._client):
            reader, writer = await open_streams(self._client, self._house.tls)
            self._writer = writer
            try:
                await self._converse(reader, writer)
            except RequestError as refusal:
                self._end(writer, error_response(refusal, LAST))
                await linger(asyncio.create_task(discard(reader)))
            except asyncio.CancelledError:
                self._end(writer, self.dialogue.last_words(not_ready()))
            finally:
                self._house.departures.add(self._number)
                await self._close(writer)

    def _untaken(self) -> int:
        return untaken_bytes(self._writer) if self._writer else 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what both sides say.

        Raises:
            RequestError: the first request cannot be passed on.
        """
        opening = await self._opening(reader)
        if not opening:
            return
        try:
            server = await Upstream.connected(*self._house.upstream)
        except OSError:
            raise not_ready() from None
        with closing(server):
            upload = asyncio.create_task(self._upload(opening, reader, server))
            try:
                await self._download(server, writer)
                self._end(writer, self.dialogue.last_words(internal()))
                await linger(upload)
            finally:
                upload.cancel()
                # Its socket is closed next.
                await asyncio.wait({upload})

    async def _opening(self, reader: asyncio.StreamReader) -> bytes:
        """What goes on first; nothing where the client goes before its first head is there."""
        while chunk := await reader.read(CHUNK_BYTES):
            if passed := self._take(chunk):
                return passed
        return b""

    async def _upload(self, opening: bytes, reader: asyncio.StreamReader, server: Upstream) -> None:
        """Until the client has gone. One that closes its own side alone counts as gone: TorchServe
        does not answer it either."""
        try:
            await server.send(opening)
            while chunk := await reader.read(CHUNK_BYTES):
                await self._pass_on(chunk, server)
        except OSError:
            server.shut()
        else:
            server.end()
        self._house.departures.add(self._number)

    async def _pass_on(self, chunk: bytes, server: Upstream) -> None:
        try:
            passed = self._take(chunk)
        except RequestError as refusal:
            self.dialogue.error = refusal
            server.shut()
        else:
            await server.send(passed)

    def _take(self, chunk: bytes) -> bytes:
        """What goes on to TorchServe of what the client has sent.

        Raises:
            RequestError: it begins a request, and there is no room for one more.
        """
        was_busy = self.dialogue.is_busy
        passed = self.dialogue.to_server(chunk)
        if self.dialogue.is_busy and not was_busy:
            self._house.check_room(self.dialogue.first_line)
        return passed

    async def _download(self, server: Upstream, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not self.dialogue.is_over and (chunk := await server.read()):
                writer.write(self.dialogue.to_client(chunk))
                await writer.drain()

    def _end(self, writer: asyncio.StreamWriter, words: bytes) -> None:
        if self.dialogue.ended:
            return
        self.dialogue.ended = True
        writer.write(words)
        if writer.can_write_eof():  # TLS cannot: there closing is all there is to say
            writer.write_eof()

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self.dialogue.ended = True
        writer.close()
        try:
            await writer.wait_closed()  # its client may be slow to take its answer
        except asyncio.CancelledError:
            writer.transport.abort()
