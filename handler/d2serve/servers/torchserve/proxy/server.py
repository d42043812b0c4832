"""The proxy server: accept clients, limit connections, enforce timeouts, stop gracefully."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

from d2serve.servers.torchserve.proxy.connection import Connection
from d2serve.servers.torchserve.proxy.limits import IDLE_PHASES, SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.responses import too_many_connections
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, FileLock
from d2serve.servers.torchserve.proxy.sockets import Address, accept, listen

POLL_S = 0.1
# Interval at which the timeouts of all connections are checked.
TIMEOUT_CHECK_S = 0.25
# A worker that dies is replaced within seconds, unless it cannot start any more. SageMaker's
# clients time out after the same time.
NO_WORKER_TIMEOUT_S = 60.0
HEALTH_CHECK = re.compile(rb"(GET|HEAD) /ping[ ?]")


class ProxyServer:
    """Forwards each client's connection, with TLS or without, to TorchServe.

    Args:
        upstream: TorchServe's address.
        workers: the lock that each ready worker holds.
        disconnects: receives the ids of clients that have disconnected.
        limits: limits for clients.
        tls: the server's TLS configuration; None for plain HTTP.
    """

    def __init__(
        self,
        upstream: Address,
        workers: FileLock,
        disconnects: DisconnectTable,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.upstream = upstream
        self.limits = limits
        self.tls = tls
        self.disconnects = disconnects
        self._workers = workers
        self._stopped = asyncio.Event()
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """Accept no new connections from now on."""
        self._stopped.set()

    def is_ready(self) -> bool:
        """True if a worker can take requests and the proxy is not stopping."""
        return not self._stopped.is_set() and self._workers.is_held_elsewhere()

    def check_capacity(self, request_line: bytes) -> None:
        """Check the number of connections with a request in progress; health checks always pass.

        Args:
            request_line: start line of a request that is in progress already.

        Raises:
            RequestError: the request exceeds the limit.
        """
        limit = self.limits.connections
        if len(self._connections) <= limit or HEALTH_CHECK.match(request_line):
            return
        if sum(connection.state.is_busy for connection in self._connections) > limit:
            raise too_many_connections()

    async def serve(self, public: Address, port: FileLock, on_open: Callable[[], None]) -> None:
        """Listen until stopped, then finish the requests in progress.

        It also stops when TorchServe exits and when no worker has been ready for
        NO_WORKER_TIMEOUT_S.

        Args:
            public: the address to listen on.
            port: released when another proxy may listen, even if connections are still open here.
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
                port.release()
                self._cancel(list(self._connections))
            self._stopped.set()
            while self._connections:
                await asyncio.wait(self._connections.values())
            enforcing.cancel()

    async def _wait_for_absence_of_workers(self) -> None:
        """Return when no worker has been ready for NO_WORKER_TIMEOUT_S."""
        last_ready = time.monotonic()
        while time.monotonic() - last_ready < NO_WORKER_TIMEOUT_S:
            await asyncio.sleep(POLL_S)
            if self._workers.is_held_elsewhere():
                last_ready = time.monotonic()

    async def _accept_clients(self, listener: socket.socket) -> None:
        while True:
            try:
                client = await accept(listener)
            except OSError:  # the client disconnected, or the system is out of file descriptors
                await asyncio.sleep(POLL_S)
                continue
            self._evict_idle_connection()
            connection = Connection(client, self)
            task = asyncio.create_task(connection.run())
            self._connections[connection] = task
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: Connection, _: "asyncio.Task[None]") -> None:
        del self._connections[connection]

    def _evict_idle_connection(self) -> None:
        """Close the longest-idle connection when the limit is reached."""
        if len(self._connections) < self.limits.connections + SPARE_CONNECTIONS:
            return
        idle = [each for each in self._connections if not each.state.is_busy]
        if idle:
            self._cancel([min(idle, key=lambda each: each.state.last_progress)])

    async def _enforce_timeouts(self) -> None:
        """Close connections that have timed out and, after a stop, those without a request."""
        while True:
            await asyncio.sleep(TIMEOUT_CHECK_S)
            stopping = self._stopped.is_set()
            self._cancel(
                each
                for each in list(self._connections)
                if each.state.is_timed_out() or (stopping and each.state.phase in IDLE_PHASES)
            )

    def _cancel(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            self._connections[connection].cancel()
