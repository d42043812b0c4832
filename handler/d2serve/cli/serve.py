"""The commands `d2serve serve` and `d2serve demo`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.cli.options import examples, requires_extra
from d2serve.errors import CommandError

if TYPE_CHECKING:
    from d2serve.servers.torchserve.launcher.network import Certificate
    from d2serve.servers.torchserve.launcher.server import Server

PANEL = "Serving"
LOOPBACK = "127.0.0.1"
BUNDLED_ARCHIVE = Path("model-store", "shapes.mar")
BUNDLED_MODEL = Path("models", "shapes")

app = typer.Typer()


class ServerKind(str, Enum):
    """Choices of --server."""

    TORCHSERVE = "torchserve"
    ASGI = "asgi"
    RAY = "ray"


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve serve model-store/my-model.mar",
        "d2serve serve model-store/my-model.mar --address 0.0.0.0 --certificate cert.pem "
        "--key key.pem",
    ),
)
def serve(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Archive (.mar), or a folder with its content.")
    ] = BUNDLED_ARCHIVE,
    server: Annotated[
        ServerKind, typer.Option(help="Server to start; this version has torchserve only.")
    ] = ServerKind.TORCHSERVE,
    port: Annotated[int, typer.Option(help="Port of the inference API.")] = 8080,
    address: Annotated[
        str, typer.Option(help="IP address to listen on; 0.0.0.0 accepts other machines.")
    ] = LOOPBACK,
    metrics_address: Annotated[str, typer.Option(help="IP address of the metrics.")] = LOOPBACK,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate; enables HTTPS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Serve a model in the foreground.

    Ctrl-C or SIGTERM stops the server after it has completed the requests in progress.
    """
    if server is not ServerKind.TORCHSERVE:
        raise typer.BadParameter(
            f"{server.value!r} is not available in this version; use torchserve",
            param_hint="'--server'",
        )
    with requires_extra("torchserve"):
        from d2serve.servers.torchserve.launcher.network import Exposure
        from d2serve.servers.torchserve.launcher.ports import Ports
        from d2serve.servers.torchserve.launcher.server import running_server

        exposure = Exposure(address, metrics_address, _certificate(certificate, key))
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


@app.command(rich_help_panel=PANEL, epilog=examples("d2serve demo"))
def demo(
    repository: Annotated[
        Path, typer.Option(metavar="DIR", help="Checkout of the repository.", show_default="here")
    ] = Path(),
) -> None:
    """Serve the bundled model and send its sample images.

    Prints the detections and writes the images with the detections drawn on them to out/.
    """
    from d2serve.client.client import Client
    from d2serve.client.folder import result_console, result_table, send_images
    from d2serve.client.http import HttpTransport

    with requires_extra("torchserve"):
        from d2serve.servers.torchserve.launcher.server import running_server

    archive = _bundled_archive(repository)
    overlays, logs = repository / "out", repository / "logs" / "demo"
    typer.echo(f"Starting TorchServe with {archive}")
    with (
        running_server(archive, log_dir=logs) as server,
        Client(HttpTransport(f"{server.url}/invocations")) as client,
    ):
        results = send_images(client, [repository / BUNDLED_MODEL / "samples"], overlays)
    result_console().print(result_table(results))
    failed = sum(result.failed for result in results)
    if failed:
        typer.echo(f"{failed} of {len(results)} images failed; the logs are in {logs}")
        raise typer.Exit(1)
    typer.echo(f"{len(results)} images done; their overlays are in {overlays}")


def _wait_until_stopped(server: "Server") -> None:
    try:
        server.wait_for_exit()
    except KeyboardInterrupt:
        typer.echo("completing requests in progress; press Ctrl-C again to stop at once")
        server.stop()
        raise


def _startup_message(server: "Server") -> str:
    token = '-H "Authorization: Bearer TOKEN" ' if server.exposure.needs_token else ""
    trust = f"--cacert {server.exposure.certificate.chain} " if server.exposure.certificate else ""
    return (
        f"{server.model_name} is served at {server.url}/invocations; try: curl {trust}{token}"
        f"-H 'Content-Type: image/jpeg' --data-binary @image.jpg {server.url}/invocations"
    )


def _warnings(server: "Server") -> Iterator[str]:
    """Yield access notes for a server that other machines can reach."""
    from d2serve.servers.torchserve.launcher.network import url_host

    if not server.exposure.needs_token:
        return
    yield f"other machines reach it at {url_host(server.exposure.address)}:{server.ports.inference}"
    yield f"TOKEN is inference.key in {server.key_file}"
    if server.exposure.certificate is None:
        yield "traffic and token are not encrypted; --certificate and --key enable HTTPS"


def _certificate(chain: Path | None, key: Path | None) -> "Certificate | None":
    from d2serve.servers.torchserve.launcher.network import Certificate

    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise CommandError("--certificate and --key belong together; give both or neither")
    return Certificate(chain, key)


def _bundled_archive(repository: Path) -> Path:
    """Return the archive of the bundled model, built if missing.

    Raises:
        CommandError: the folder is not a checkout of the repository.
    """
    model, archive = repository / BUNDLED_MODEL, repository / BUNDLED_ARCHIVE
    if not (model / "config.yaml").is_file():
        raise CommandError(
            f"{model} does not exist: the bundled model is part of the repository, not of the "
            "installed package; run this in a checkout, or give one with --repository"
        )
    if not archive.exists():
        from d2serve.building.archive import build_archive

        build_archive(
            model / "config.yaml",
            model / "model_final.pth",
            archive,
            class_names=model / "classes.json",
        )
    return archive
