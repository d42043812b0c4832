"""Open the port of the server."""

import socket
from contextlib import suppress

from d2serve.errors import CommandError
from d2serve.servers.asgi.config import BACKLOG
from d2serve.servers.exposure import ANY_IPV6, check_address, family_of


def open_listener(address: str, port: int) -> socket.socket:
    """Listen on a TCP port.

    Raises:
        CommandError: the address does not belong to this machine, or the port cannot be used.
    """
    check_address(address)
    listener = socket.socket(family_of(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address == ANY_IPV6:
        with suppress(OSError):  # systems that separate the families
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise CommandError(
            f"port {port} cannot be used ({error}); use another one, such as --port "
            f"{port + 1000 if 0 < port < 64000 else 8080}"
        ) from error
    return listener
