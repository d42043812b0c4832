"""The proxy process, which owns the public port.

Each ready worker starts one. One of them listens; the others stand by until the port is free.
"""

import asyncio
import json
import os
import resource
import signal
import ssl
import sys
from pathlib import Path

from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.server import POLL_S, ProxyServer
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, FileLock
from d2serve.servers.torchserve.proxy.sockets import parse_address

READY = b"ready\n"


def run() -> None:
    """Run the proxy with the arguments of the command line; exit with a message on failure."""
    try:
        asyncio.run(main(*sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))


async def main(public: str, upstream: str, state: str, limits: str, *certificate: str) -> None:
    """Run the proxy.

    Args:
        public: `host:port` to listen on.
        upstream: `host:port` of TorchServe.
        state: path prefix of the files that the workers of one TorchServe share.
        limits: the fields of `Limits` as JSON.
        certificate: PEM files of the certificate chain and its key, for TLS.
    """
    prefix = Path(state)
    server = ProxyServer(
        parse_address(upstream),
        FileLock(workers_file(prefix)),
        DisconnectTable(disconnects_file(prefix)),
        Limits(**json.loads(limits)).capped_by_files(raise_file_limit()),
        tls_context(*certificate) if certificate else None,
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    port = FileLock(port_file(prefix))
    is_standby = not port.try_acquire()
    if is_standby:
        report_ready()
        if not await _wait_for_port(port):
            return
    port.write(str(os.getpid()))
    on_open = _do_nothing if is_standby else report_ready
    await server.serve(parse_address(public), port, on_open)
    # Each worker sends SIGTERM, perhaps after the server has stopped.
    loop.remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def workers_file(prefix: Path) -> Path:
    """The file that each worker locks while it is ready."""
    return prefix.with_suffix(".ready")


def port_file(prefix: Path) -> Path:
    """The file that the listening proxy locks; it holds the proxy's process id."""
    return prefix.with_suffix(".port")


def disconnects_file(prefix: Path) -> Path:
    """The file of the `DisconnectTable`."""
    return prefix.with_suffix(".disconnects")


def report_ready() -> None:
    """Report to the worker that started this process, then detach from its output pipe."""
    os.write(1, READY)
    null = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(null, output)


def raise_file_limit() -> int:
    """Raise the soft limit of open files, usually a few hundred, to the hard one; return it."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return limit


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return a server's TLS context with these PEM files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _do_nothing() -> None:
    """Do not report: the worker has been notified already."""


async def _wait_for_port(port: FileLock) -> bool:
    """Stand by until the port is free; False if this process's worker exits before."""
    worker_exit = asyncio.ensure_future(_read_stdin())
    while not port.try_acquire():
        done, _ = await asyncio.wait({worker_exit}, timeout=POLL_S)
        if done:
            return False
    worker_exit.cancel()
    return True


async def _read_stdin() -> bytes:
    """Return at the end of the standard input, which the worker holds open while it runs."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return await reader.read()
