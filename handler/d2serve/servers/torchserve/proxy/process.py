"""The proxy process, which owns the public port."""

import asyncio
import json
import os
import resource
import signal
import ssl
import sys
from pathlib import Path

from d2serve.errors import ProxyError
from d2serve.servers.cors import Cors
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.server import ProxyServer
from d2serve.servers.torchserve.proxy.shared_files import RuntimeFolder
from d2serve.servers.torchserve.proxy.supervisor import READY
from d2serve.servers.torchserve.proxy.upstream import Address


def run() -> None:
    """Run the proxy with the arguments of the command line; exit with a message on failure."""
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, ProxyError) as error:
        sys.exit(str(error))


async def main(
    public: str, upstream: str, folder: str, limits: str, cors: str, *certificate: str
) -> None:
    """Run the proxy, unless another one owns the port already.

    Args:
        public: `host:port` to listen on.
        upstream: `host:port` of TorchServe.
        folder: the runtime folder that the workers share.
        limits: the fields of `Limits` as JSON.
        cors: the origins of `Cors` as JSON.
        certificate: PEM files of the certificate chain and its key, for TLS.
    """
    shared = RuntimeFolder(Path(folder))
    try:
        if not shared.port.try_acquire():
            report_ready()
            return
        shared.port.write(str(os.getpid()))
        server = ProxyServer(
            parse_address(upstream),
            shared,
            Limits(**json.loads(limits)).capped_by_files(raise_file_limit()),
            tls_context(*certificate) if certificate else None,
            Cors(tuple(json.loads(cors))),
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        await server.serve(parse_address(public), report_ready)
        # Each worker sends SIGTERM, perhaps after the server has stopped.
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        shared.close()


def parse_address(text: str) -> Address:
    """Split `host:port`; the host may be an IPv6 address, with or without brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


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
