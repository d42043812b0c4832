"""The proxy context that connections share, and the public listening socket."""

import asyncio
import socket
import ssl
from typing import Protocol

from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.shared_files import Departures

Address = tuple[str, int]
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


class House(Protocol):
    """One front door.

    Attributes:
        upstream: where TorchServe listens.
        tls: what it proves its name with; None for plain HTTP.
        limits: what clients may take.
        departures: where it is noted who has gone.
    """

    upstream: Address
    tls: ssl.SSLContext | None
    limits: Limits
    departures: Departures

    def is_ready(self) -> bool:
        """Whether any worker can take requests."""

    def check_room(self, first_line: bytes) -> None:
        """Raises a RequestError where a request that begins so is one too many."""
