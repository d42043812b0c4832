"""The proxy server: accept clients, watch connections, close in time."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

from d2serve.servers.torchserve.proxy.connection import Connection
from d2serve.servers.torchserve.proxy.context import Address, accept, listen
from d2serve.servers.torchserve.proxy.limits import IDLE, SPARE_CONNECTIONS, Limits
from d2serve.servers.torchserve.proxy.responses import full
from d2serve.servers.torchserve.proxy.shared_files import Departures, FileLock

POLL_S = 0.1
# How often every connection is looked at.
WATCH_S = 0.25
# A worker that dies is back within seconds, unless it cannot start any more. SageMaker's clients
# wait no longer than this.
ABANDONED_S = 60.0
HEALTH_CHECK = re.compile(rb"(GET|HEAD) /ping[ ?]")


class Relay:
    """Copies bytes both ways between each client, with TLS or without, and `upstream`."""

    def __init__(
        self,
        upstream: Address,
        presence: FileLock,
        departures: Departures,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.upstream = upstream
        self.limits = limits
        self.tls = tls
        self.departures = departures
        self._presence = presence
        self._stopped = asyncio.Event()
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """Takes no new connections from now on."""
        self._stopped.set()

    def is_ready(self) -> bool:
        """Whether a worker can take requests, and new ones are welcome."""
        return not self._stopped.is_set() and self._presence.is_held_by_others()

    def check_room(self, first_line: bytes) -> None:
        """Lets as many requests be under way as the limits say, and health checks besides.

        Args:
            first_line: of a request that is among them already.

        Raises:
            RequestError: it is one too many.
        """
        most = self.limits.connections
        if len(self._connections) <= most or HEALTH_CHECK.match(first_line):
            return
        if sum(connection.dialogue.is_busy for connection in self._connections) > most:
            raise full()

    async def serve(self, public: Address, port: FileLock, on_open: Callable[[], None]) -> None:
        """Listens until it is to stop, then lets the requests that are here finish.

        Args:
            public: where to listen.
            port: let go of when another relay may listen there, though connections are open here.
            on_open: called when the port is open.

        Raises:
            OSError: the public address cannot be listened on, or nobody listens upstream.
        """
        upstream, held_open = await asyncio.open_connection(*self.upstream)
        with closing(held_open):
            with listen(public) as listener:
                on_open()
                letting_in = asyncio.create_task(self._let_in(listener))
                watching = asyncio.create_task(self._watch())
                gone = asyncio.create_task(upstream.read())
                abandoned = asyncio.create_task(self._abandoned())
                stopped = asyncio.create_task(self._stopped.wait())
                reasons = {letting_in, watching, gone, abandoned, stopped}
                await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
                letting_in.cancel()
            if abandoned.done():
                port.release()
                self._break_off(list(self._connections))
            self._stopped.set()
            while self._connections:
                await asyncio.wait(self._connections.values())
            watching.cancel()

    async def _abandoned(self) -> None:
        """Returns when no worker has been ready for long."""
        last_ready = time.monotonic()
        while time.monotonic() - last_ready < ABANDONED_S:
            await asyncio.sleep(POLL_S)
            if self._presence.is_held_by_others():
                last_ready = time.monotonic()

    async def _let_in(self, listener: socket.socket) -> None:
        while True:
            try:
                client = await accept(listener)
            except OSError:  # it has gone again, or the machine has no file left for it
                await asyncio.sleep(POLL_S)
                continue
            self._make_room()
            connection = Connection(client, self)
            task = asyncio.create_task(connection.run())
            self._connections[connection] = task
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: Connection, _: "asyncio.Task[None]") -> None:
        del self._connections[connection]

    def _make_room(self) -> None:
        """Parts with the one that has waited for its client for longest, where all are taken."""
        if len(self._connections) < self.limits.connections + SPARE_CONNECTIONS:
            return
        waiting = [each for each in self._connections if not each.dialogue.is_busy]
        if waiting:
            self._break_off([min(waiting, key=lambda each: each.dialogue.since)])

    async def _watch(self) -> None:
        """Ends connections whose clients stall, and once stopped those without a request."""
        while True:
            await asyncio.sleep(WATCH_S)
            ends = self._stopped.is_set()
            self._break_off(
                each
                for each in list(self._connections)
                if each.dialogue.stalls() or (ends and each.dialogue.stage in IDLE)
            )

    def _break_off(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            self._connections[connection].cancel()
