"""The command `d2serve serve --server ray`."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from d2serve.cli.options import require_packages, startup_message
from d2serve.servers.asgi.config import LOG_FORMAT
from d2serve.servers.asgi.token import given_token, new_token, token_source_of
from d2serve.servers.cors import Cors
from d2serve.servers.exposure import check_address, is_loopback, url_host
from d2serve.servers.ray.local import LocalConfig, LocalServer, running_server

# The packages of the extra `ray`.
PACKAGES = ("ray", "starlette", "prometheus_client")
# Options of the other servers, and the reason why Ray Serve has none such.
UNSUPPORTED = {
    "certificate": "HAProxy, as Ray Serve runs it, has no TLS; put a reverse proxy in front of it",
    "key": "HAProxy, as Ray Serve runs it, has no TLS; put a reverse proxy in front of it",
    "grpc_port": "d2serve's gRPC service is a part of --server asgi",
    "metrics_address": "the metrics are at /metrics, and in Ray's own metrics",
    "forwarded_allow_ips": "Ray Serve's proxy replaces the addresses of clients",
}


def check_options(given: Sequence[str]) -> None:
    """Reject options that Ray Serve does not support.

    Args:
        given: the names of the options on the command line, such as `grpc_port`.

    Raises:
        typer.BadParameter: naming the first one.
    """
    for name, reason in UNSUPPORTED.items():
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(
                f"is not supported by --server ray: {reason}", param_hint=f"'{option}'"
            )


def serve_ray(models: Sequence[Path], config: LocalConfig, token_file: Path | None) -> None:
    """Serve models until a signal stops the server, and Ray with it.

    Raises:
        CommandError: an option is not valid, or a package is not installed.
        ServerError: a model cannot be loaded, or Ray has ended.
        ArchiveError: an archive cannot be unpacked.
    """
    require_packages(PACKAGES, "ray")
    check_address(config.address)
    Cors.of(config.cors_origins)
    given = given_token(token_file)
    token = given or ("" if is_loopback(config.address) else new_token())
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    try:
        with running_server(models, config, token) as server:
            source = token_source_of(server.home, given, token, token_file)
            typer.echo("\n".join(_messages(server, config, source)))
            try:
                server.wait()
            except KeyboardInterrupt:
                typer.echo("completing requests in progress")
    except KeyboardInterrupt:
        typer.echo("stopped at once")
    else:
        typer.echo("stopped")


def _messages(server: LocalServer, config: LocalConfig, token_source: str | None) -> Iterator[str]:
    for name in server.names:
        yield startup_message(name, server.url_of(name), None, token_source is not None)
    proxy = "HAProxy" if server.has_haproxy else "Ray's default proxy"
    yield f"Ray Serve listens on {url_host(config.address)} with {proxy}"
    if token_source:
        yield f"TOKEN is {token_source}"
    if not is_loopback(config.address):
        yield "traffic and token are not encrypted; Ray Serve needs a reverse proxy for HTTPS"
