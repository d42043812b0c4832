"""The proxy process behind the public port."""

import asyncio
import json
import os
import resource
import signal
import ssl
import sys
from pathlib import Path

from d2serve.servers.torchserve.proxy.context import Address
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.server import POLL_S, Relay
from d2serve.servers.torchserve.proxy.shared_files import Departures, FileLock

READY = b"ready\n"


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
    """`host:port` as a pair; the host may be an IPv6 address, in brackets or without."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def take_files() -> int:
    """As many open files as the system allows, and how many: the usual soft limit is a few
    hundred."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def speaking_tls(certificate: str, key: str) -> ssl.SSLContext:
    """A server that proves its name with these PEM files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def main(public: str, upstream: str, state: str, limits: str, *certificate: str) -> None:
    """Relay between the two `host:port`; `state` is the path that the server's workers share, and
    `limits` are those of `Limits` as JSON."""
    bounds = Limits(**json.loads(limits)).affordable(take_files())
    tls = speaking_tls(*certificate) if certificate else None
    shared = Path(state)
    presence, departures = FileLock(presence_file(shared)), Departures(departures_file(shared))
    relay = Relay(address(upstream), presence, departures, bounds, tls)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, relay.stop)
    port = FileLock(port_file(shared))
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


def departures_file(state: Path) -> Path:
    """Which clients have hung up."""
    return state.with_suffix(".gone")


def run() -> None:
    """Ends with a line that says why where the port cannot be opened."""
    try:
        asyncio.run(main(*sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))
