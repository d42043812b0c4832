"""Sockets of the proxy: the public listener, client streams and upstream connections."""

import asyncio
import socket
import ssl
from contextlib import suppress

Address = tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 1 << 18
# Clients that connect at the same moment.
BACKLOG = 1024
ANY_IPV6 = "::"


def parse_address(text: str) -> Address:
    """Split `host:port`; the host may be an IPv6 address, with or without brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def listen(public: Address) -> socket.socket:
    """Open a listening socket; `::` accepts IPv4 clients too.

    Raises:
        OSError: the address does not belong to this machine, or is in use.
    """
    host, _ = public
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual_stack = host == ANY_IPV6 and socket.has_dualstack_ipv6()
    listener = socket.create_server(
        public, family=family, backlog=BACKLOG, dualstack_ipv6=dual_stack
    )
    listener.setblocking(False)
    return listener


async def accept(listener: socket.socket) -> socket.socket:
    """Accept the next client.

    asyncio's own servers report a connection only after its TLS handshake, so their number of
    connections cannot be limited.
    """
    # Lets existing connections run when many clients connect at once.
    await asyncio.sleep(0)
    client, _ = await asyncio.get_running_loop().sock_accept(listener)
    return client


async def open_streams(client: socket.socket, tls: ssl.SSLContext | None) -> Streams:
    """Open streams to an accepted client, after the handshake if `tls` is given.

    Raises:
        OSError: the client has disconnected or does not speak TLS.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def unsent_bytes(writer: asyncio.StreamWriter) -> int:
    """Number of written bytes that are still buffered, because the other side does not read."""
    try:
        return writer.transport.get_write_buffer_size()
    except AttributeError:  # Python 3.10, after a TLS connection was lost
        return 0


async def discard(reader: asyncio.StreamReader) -> None:
    """Read to the end and drop the bytes."""
    with suppress(OSError):
        while await reader.read(CHUNK_BYTES):
            pass


class Upstream:
    """A connection to TorchServe whose two directions end independently.

    A server that rejects a request before reading all of it sends its response and resets the
    connection. An asyncio transport that notices the reset while sending drops the response, so
    this uses a plain socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._can_send = True

    @classmethod
    async def connect(cls, host: str, port: int) -> "Upstream":
        """Open a connection.

        Raises:
            OSError: nothing listens there.
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
        """Send all of `data`; drop it if the server has closed the connection."""
        try:
            if self._can_send:
                await self._loop.sock_sendall(self._socket, data)
        except OSError:
            self._can_send = False

    async def read(self) -> bytes:
        """Read the next bytes; empty at the end.

        Raises:
            OSError: the connection broke, and all bytes received before that have been read.
        """
        return await self._loop.sock_recv(self._socket, CHUNK_BYTES)

    def shut_down_sending(self) -> None:
        """Signal to the server that no more bytes follow."""
        self._shut_down(socket.SHUT_WR)

    def shut_down(self) -> None:
        """End both directions; a pending `read` returns."""
        self._shut_down(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the socket; no `read` or `send` may be pending."""
        self._socket.close()

    def _shut_down(self, how: int) -> None:
        with suppress(OSError):
            self._socket.shutdown(how)
