"""A port that is listened on, and its clients' connections, with TLS or without."""

import asyncio
import socket
import ssl

Address = tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Clients who come at the same moment.
BACKLOG = 1024
ANY_IPV6 = "::"


def listen(public: Address) -> socket.socket:
    """A socket that clients can connect to; `::` takes those with IPv4 too.

    Raises:
        OSError: the address is none of this machine's, or in use.
    """
    host, _ = public
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == ANY_IPV6 and socket.has_dualstack_ipv6()
    listener = socket.create_server(public, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener


async def accept(listener: socket.socket) -> socket.socket:
    """The next client's connection.

    asyncio's own servers say nothing of a connection before its TLS handshake is through, so they
    cannot be bounded.
    """
    # Where many come at once, those who are here have their turn too.
    await asyncio.sleep(0)
    client, _ = await asyncio.get_running_loop().sock_accept(listener)
    return client


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
