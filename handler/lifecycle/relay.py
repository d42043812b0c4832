"""The process behind the public port: it passes connections on to TorchServe.

Started by each worker that is ready to serve (`handler.lifecycle.front_door`). The first one has
the port for as long as TorchServe runs: it stays when its worker dies, so that requests can wait
for the next one. The others stand by. It closes the port when it is told to (SIGTERM), when
TorchServe has gone, and when no worker has been ready for long.
"""

import asyncio
import os
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from handler.lifecycle.connection import Connection
from handler.lifecycle.locks import FileLock

READY = b"ready\n"
POLL_S = 0.1
# A worker that dies is back within seconds, unless it cannot start any more. SageMaker's clients
# wait no longer than this.
ABANDONED_S = 60.0
Address = tuple[str, int]


class Relay:
    """Copies bytes both ways between each client, with TLS or without, and `upstream`."""

    def __init__(
        self, upstream: Address, presence: FileLock, tls: ssl.SSLContext | None = None
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._presence = presence
        self._stopped = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Takes no new connections from now on."""
        self._stopped.set()

    def is_ready(self) -> bool:
        """Whether a worker can take requests, and new ones are welcome."""
        return not self._stopped.is_set() and self._presence.is_held_by_others()

    async def serve(self, public: Address, port: FileLock, on_open: Callable[[], None]) -> None:
        """Listens until it is to stop, then lets the connections finish.

        Args:
            public: where to listen.
            port: let go of when another relay may listen there, though connections are open here.
            on_open: called when the port is open.

        Raises:
            OSError: the public address cannot be listened on, or nobody listens upstream.
        """
        upstream, held_open = await asyncio.open_connection(*self._upstream)
        with closing(held_open):
            server = await asyncio.start_server(self._accept, *public, ssl=self._tls)
            on_open()
            gone = asyncio.create_task(upstream.read())
            abandoned = asyncio.create_task(self._abandoned())
            stopped = asyncio.create_task(self._stopped.wait())
            await asyncio.wait({gone, abandoned, stopped}, return_when=asyncio.FIRST_COMPLETED)
            server.close()
            if abandoned.done():
                port.release()
                for connection in self._connections:
                    connection.cancel()
            while self._connections:
                await asyncio.wait(self._connections)

    async def _abandoned(self) -> None:
        """Returns when no worker has been ready for long."""
        last_ready = time.monotonic()
        while time.monotonic() - last_ready < ABANDONED_S:
            await asyncio.sleep(POLL_S)
            if self._presence.is_held_by_others():
                last_ready = time.monotonic()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self.is_ready)
        task = asyncio.create_task(connection.run(*self._upstream))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)


def tell_ready() -> None:
    """Says to the worker that started this process that the port is open, and nothing after that:
    nobody would read it."""
    os.write(1, READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)


def nothing_to_tell() -> None:
    """The worker has been told already."""


def address(text: str) -> Address:
    """`host:port` as a pair."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def take_files() -> None:
    """As many connections as the system allows: the usual soft limit is a few hundred."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def speaking_tls(certificate: str, key: str) -> ssl.SSLContext:
    """A server that proves its name with these PEM files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def main(public: str, upstream: str, state: str, *certificate: str) -> None:
    """Relay between the two `host:port`; `state` is the path that the server's workers share."""
    take_files()
    tls = speaking_tls(*certificate) if certificate else None
    relay = Relay(address(upstream), FileLock(presence_file(Path(state))), tls)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, relay.stop)
    port = FileLock(port_file(Path(state)))
    if port.take():
        on_open = tell_ready
    else:
        tell_ready()
        if not await _inherits(port):
            return
        on_open = nothing_to_tell
    port.write(str(os.getpid()))
    await relay.serve(address(public), port, on_open)
    # Every worker tells it to stop, some perhaps when it has.
    loop.remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def _inherits(port: FileLock) -> bool:
    """Stands by until the port is free; False if this process's worker has ended before."""
    worker = asyncio.ensure_future(_end_of_input())
    while not port.take():
        done, _ = await asyncio.wait({worker}, timeout=POLL_S)
        if done:
            return False
    worker.cancel()
    return True


async def _end_of_input() -> bytes:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return await reader.read()


def presence_file(state: Path) -> Path:
    """What each worker holds while it is ready."""
    return state.with_suffix(".ready")


def port_file(state: Path) -> Path:
    """What the relay with the port holds; its process id is in it."""
    return state.with_suffix(".port")


def run() -> None:
    """Ends with a line that says why where the port cannot be opened."""
    try:
        asyncio.run(main(*sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))
