"""The command `d2serve serve --server asgi`."""

import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from d2serve.cli.options import require_packages, startup_message
from d2serve.cli.run import STOP_SIGNALS
from d2serve.servers.asgi.config import LOG_FORMAT, ServerConfig
from d2serve.servers.asgi.supervisor import Supervisor, running_server
from d2serve.servers.asgi.token import given_token, new_token, token_source_of
from d2serve.servers.cors import Cors
from d2serve.servers.exposure import Certificate, url_host

# The packages of the extra `asgi`, which only the server process imports.
PACKAGES = ("starlette", "uvicorn", "h11", "prometheus_client")
GRPC_PACKAGES = ("grpc",)
# When a terminal stops make and its child together, make sends the child a second signal at once.
SAME_SIGNAL_S = 1.0


@dataclass(frozen=True)
class AsgiOptions:
    """The options of the command that only this server has; see `d2serve serve --help`."""

    name: str = ""
    token_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    forwarded_allow_ips: str = "127.0.0.1"
    forward_timeout_s: float = 120
    grpc_port: int | None = None
    playground: bool = True


def serve_asgi(
    models: Sequence[Path],
    address: str,
    port: int,
    certificate: Certificate | None,
    options: AsgiOptions,
) -> None:
    """Serve models until a signal stops the server.

    Raises:
        CommandError: an option is not valid, or a package is not installed.
        ServerError: the server cannot load the models.
        ArchiveError: an archive cannot be unpacked.
    """
    require_packages(PACKAGES, "asgi")
    if options.grpc_port is not None:
        require_packages(GRPC_PACKAGES, "grpc")
    config = ServerConfig(
        folders={},
        address=address,
        port=port,
        chain=str(certificate.chain.resolve()) if certificate else "",
        key=str(certificate.key.resolve()) if certificate else "",
        forwarded_allow_ips=options.forwarded_allow_ips,
        cors_origins=Cors.of(options.cors_origins).origins,
        forward_timeout_s=options.forward_timeout_s,
        grpc_port=options.grpc_port,
        playground=options.playground,
    )
    given = given_token(options.token_file)
    token = given or (new_token() if config.needs_token else "")
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    try:
        with running_server(models, config, name=options.name, token=token) as server:
            server.wait_until_ready()
            token_source = token_source_of(server.home, given, token, options.token_file)
            typer.echo("\n".join(_messages(server, certificate, token_source)))
            try:
                server.wait_for_exit()
            except KeyboardInterrupt:
                _stop(server)
    except KeyboardInterrupt:
        typer.echo("stopped at once")
    else:
        typer.echo("stopped")


def _stop(server: Supervisor) -> None:
    """Stop after the requests in progress; another signal raises KeyboardInterrupt."""
    typer.echo("completing requests in progress; press Ctrl-C again to stop at once")
    started = time.monotonic()

    def stop_at_once(*_: object) -> None:
        if time.monotonic() - started > SAME_SIGNAL_S:
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, stop_at_once)
    server.stop()


def _messages(
    server: Supervisor, certificate: Certificate | None, token_source: str | None
) -> Iterator[str]:
    config = server.config
    yield startup_message(server.model_name, server.url, certificate, token_source is not None)
    if len(config.folders) > 1:
        yield f"all models: {server.url}/models/NAME/invoke with NAME {', '.join(config.folders)}"
    if config.grpc_port is not None:
        yield f"gRPC is served at {url_host(config.address)}:{config.grpc_port}"
    if token_source:
        yield f"TOKEN is {token_source}"
    if config.needs_token:
        yield f"other machines reach it at {url_host(config.address)}:{config.port}"
        if certificate is None:
            yield "traffic and token are not encrypted; --certificate and --key enable HTTPS"
