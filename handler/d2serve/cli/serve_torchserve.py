"""The command `d2serve serve --server torchserve`."""

from collections.abc import Iterator
from pathlib import Path

import typer

from d2serve.cli.options import startup_message
from d2serve.servers.exposure import url_host
from d2serve.servers.torchserve.launcher.network import Exposure
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.server import Server, running_server


def serve_torchserve(model: Path, port: int, exposure: Exposure) -> None:
    """Serve a model until a signal stops the server.

    Raises:
        CommandError: TorchServe or Java is not installed, or a port cannot be used.
        ServerError: the server cannot load the model, or has exited.
    """
    try:
        with running_server(
            model,
            log_dir=Path("logs", f"serve-{port}"),
            ports=Ports.starting_at(port, exposure.address),
            exposure=exposure,
            with_proxy=True,
        ) as running:
            typer.echo("\n".join([_startup_message(running), *_warnings(running)]))
            _wait_until_stopped(running)
    except KeyboardInterrupt:
        typer.echo("stopped")


def _wait_until_stopped(server: Server) -> None:
    try:
        server.wait_for_exit()
    except KeyboardInterrupt:
        typer.echo("completing requests in progress; press Ctrl-C again to stop at once")
        server.stop()
        raise


def _startup_message(server: Server) -> str:
    return startup_message(
        server.model_name, server.url, server.exposure.certificate, server.exposure.needs_token
    )


def _warnings(server: Server) -> Iterator[str]:
    """Yield access notes for a server that other machines can reach."""
    if not server.exposure.needs_token:
        return
    yield f"other machines reach it at {url_host(server.exposure.address)}:{server.ports.inference}"
    yield f"TOKEN is inference.key in {server.key_file}"
    if server.exposure.certificate is None:
        yield "traffic and token are not encrypted; --certificate and --key enable HTTPS"
