"""The proxy server: accept clients, limit connections, enforce timeouts, stop gracefully."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from http import HTTPStatus
from typing import Any

from d2serve.servers.body_memory import BodyMemory
from d2serve.servers.cors import Cors
from d2serve.servers.torchserve.proxy.connection import Connection
from d2serve.servers.torchserve.proxy.errors import too_many_connections
from d2serve.servers.torchserve.proxy.events import EventSender, RequestFacts
from d2serve.servers.torchserve.proxy.limits import SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.shared_files import ModelState, RuntimeFolder
from d2serve.servers.torchserve.proxy.upstream import Address

POLL_S = 0.1
# Interval at which the timeouts of all connections are checked.
TIMEOUT_CHECK_S = 0.25
# A worker that dies is replaced within seconds, unless it cannot start any more. SageMaker's
# clients time out after the same time.
NO_WORKER_TIMEOUT_S = 60.0
# Clients that connect at the same moment.
BACKLOG = 1024
ANY_IPV6 = "::"
NO_CORS = Cors()


class ProxyServer:
    """Forwards each client's requests to TorchServe.

    Args:
        upstream: TorchServe's address.
        folder: the state shared with the workers.
        limits: limits for clients.
        tls: the server's TLS configuration; None for plain HTTP.
        cors: the web pages that may send requests.
    """

    def __init__(
        self,
        upstream: Address,
        folder: RuntimeFolder,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        cors: Cors = NO_CORS,
    ) -> None:
        self.upstream = upstream
        self.limits = limits
        self.tls = tls
        self.cors = cors
        self.bodies = BodyMemory()
        self.disconnects = folder.disconnects
        self._folder = folder
        self._events = EventSender(folder.path)
        self._stopped = asyncio.Event()
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """Accept no new connections from now on."""
        self._stopped.set()

    @property
    def is_stopping(self) -> bool:
        """True if connections close after the current request."""
        return self._stopped.is_set()

    def models(self) -> Mapping[str, ModelState]:
        """The models that TorchServe serves, by name."""
        return self._folder.models()

    def is_ready(self) -> bool:
        """True if a worker can take requests and the proxy is not stopping."""
        return not self.is_stopping and self._has_worker()

    def check_capacity(self) -> None:
        """Check the number of connections with a request in progress, this one included.

        Raises:
            RequestError: the request exceeds the limit.
        """
        limit = self.limits.connections
        if len(self._connections) <= limit:
            return
        if sum(connection.is_busy for connection in self._connections) > limit:
            raise too_many_connections()

    def report(self, entry: dict[str, Any]) -> None:
        """Log and count a response that no worker has made."""
        self._events.send(entry)

    async def serve(self, public: Address, on_open: Callable[[], None]) -> None:
        """Listen until stopped, then finish the requests in progress.

        It also stops when TorchServe exits and when no worker has been ready for
        NO_WORKER_TIMEOUT_S.

        Args:
            public: the address to listen on.
            on_open: called when the port is open.

        Raises:
            OSError: the public address cannot be listened on, or nothing listens upstream.
        """
        upstream, upstream_writer = await asyncio.open_connection(*self.upstream)
        with closing(upstream_writer):
            with listen(public) as listener:
                on_open()
                accepting = asyncio.create_task(self._accept_clients(listener))
                enforcing = asyncio.create_task(self._enforce_timeouts())
                upstream_closed = asyncio.create_task(upstream.read())
                no_worker = asyncio.create_task(self._wait_for_absence_of_workers())
                stopped = asyncio.create_task(self._stopped.wait())
                await asyncio.wait(
                    {accepting, enforcing, upstream_closed, no_worker, stopped},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                accepting.cancel()
            if no_worker.done():
                # Another proxy may listen, even if connections are still open here.
                self._folder.port.release()
                self._cancel(list(self._connections))
            self._stopped.set()
            while self._connections:
                await asyncio.wait(self._connections.values())
            enforcing.cancel()
            self._events.close()

    def _has_worker(self) -> bool:
        return any(state.is_ready for state in self.models().values())

    async def _wait_for_absence_of_workers(self) -> None:
        """Return when no worker has been ready for NO_WORKER_TIMEOUT_S."""
        last_ready = time.monotonic()
        while time.monotonic() - last_ready < NO_WORKER_TIMEOUT_S:
            await asyncio.sleep(POLL_S)
            if self._has_worker():
                last_ready = time.monotonic()

    async def _accept_clients(self, listener: socket.socket) -> None:
        """Accept clients.

        asyncio's own servers report a connection only after its TLS handshake, so their number of
        connections cannot be limited.
        """
        loop = asyncio.get_running_loop()
        while True:
            # Lets existing connections run when many clients connect at once.
            await asyncio.sleep(0)
            try:
                client, _ = await loop.sock_accept(listener)
                # asyncio does this only for sockets that name their protocol.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # the client disconnected, or the system is out of file descriptors
                await asyncio.sleep(POLL_S)
                continue
            self._evict_idle_connection()
            connection = Connection(client, self)
            task = asyncio.create_task(connection.run())
            self._connections[connection] = task
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: Connection, task: "asyncio.Task[None]") -> None:
        del self._connections[connection]
        if not task.cancelled() and (error := task.exception()):
            internal_error = RequestFacts().entry(HTTPStatus.INTERNAL_SERVER_ERROR, "internal")
            self.report(internal_error | {"exception": repr(error)})

    def _evict_idle_connection(self) -> None:
        """Close the longest-idle connection when the limit is reached."""
        if len(self._connections) < self.limits.connections + SPARE_CONNECTIONS:
            return
        idle = [each for each in self._connections if not each.is_busy]
        if idle:
            self._cancel([min(idle, key=lambda each: each.last_progress)])

    async def _enforce_timeouts(self) -> None:
        """Close connections that have timed out and, after a stop, those without a request."""
        while True:
            await asyncio.sleep(TIMEOUT_CHECK_S)
            self._cancel(
                each
                for each in list(self._connections)
                if each.is_timed_out() or (self.is_stopping and each.is_idle)
            )

    def _cancel(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            self._connections[connection].cancel()


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
