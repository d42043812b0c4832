"""A real uvicorn with the protocol of this server, in a thread of the tests."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import uvicorn

from d2serve.errors import RequestError
from d2serve.servers.asgi.limits import ConnectionLimits
from d2serve.servers.asgi.protocol import TimedProtocol
from d2serve.servers.asgi.rejection import Reject
from d2serve.servers.asgi.throttling import Clients
from d2serve.servers.exposure import LOOPBACK
from tests.polling import wait_until

# No client of a test reaches them, on any machine.
PATIENT = ConnectionLimits(head_s=600, delivery_s=600, linger_s=600)
KEEP_ALIVE_S = 600
# A client waits this long for the server, much shorter than the server for it.
TIMEOUT_S = 60


@dataclass
class RunningServer:
    """A server that listens on this machine."""

    port: int
    state: Any
    errors: list[RequestError] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Open a connection; a small receive buffer makes a slow reader."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(TIMEOUT_S)
        client.connect((LOOPBACK, self.port))
        return client

    def connection_of(self, client: socket.socket) -> Any:
        """The server's end of a connection."""
        [found] = [each for each in self.state.connections if each.client == client.getsockname()]
        return found

    def exchange(self, *sent: bytes | float) -> bytes:
        """Send bytes, with pauses in seconds; return all until the server closes."""
        with self.connect() as client:
            for each in sent:
                if isinstance(each, bytes):
                    client.sendall(each)
                else:
                    time.sleep(each)
            return read_all(client)


@contextmanager
def running(
    app: Any,
    limits: ConnectionLimits = PATIENT,
    max_connections: Callable[[], int] = lambda: 1024,
    reject: Reject = lambda _: None,
    clients: Clients | None = None,
    **options: Any,
) -> Iterator[RunningServer]:
    """Run an application on a free port."""
    errors: list[RequestError] = []
    ids: list[str] = []

    def on_error(error: RequestError, request_id: str) -> None:
        errors.append(error)
        ids.append(request_id)

    protocol = partial(
        TimedProtocol,
        limits=limits,
        max_connections=max_connections,
        on_error=on_error,
        reject=reject,
        clients=clients,
    )
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], protocol),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
        **{"timeout_keep_alive": KEEP_ALIVE_S, **options},
    )
    server = uvicorn.Server(config)
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield RunningServer(port, server.server_state, errors, ids)
        finally:
            server.should_exit = True
            thread.join()


def read_all(client: socket.socket | ssl.SSLSocket) -> bytes:
    """Read until the server closes or resets the connection."""
    content = bytearray()
    try:
        while received := client.recv(1 << 16):
            content += received
    except ConnectionResetError:
        content += b"(reset)"
    return bytes(content)
