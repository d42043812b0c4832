"""The front door's connection to TorchServe."""

import asyncio
import socket
from contextlib import suppress

from handler.lifecycle.streams import CHUNK_BYTES


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
