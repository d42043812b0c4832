"""Reading from clients and writing to them, with TLS or without."""

import asyncio
import socket
import ssl
from contextlib import suppress

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
