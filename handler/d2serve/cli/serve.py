"""The commands `d2serve serve` and `d2serve demo`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from d2serve.cli.options import examples, requires_extra, startup_message
from d2serve.errors import CommandError

if TYPE_CHECKING:
    from d2serve.servers.exposure import Certificate
    from d2serve.servers.torchserve.launcher.network import Exposure
    from d2serve.servers.torchserve.launcher.server import Server

PANEL = "Serving"
ASGI_PANEL = "Options of --server asgi and ray"
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
        "d2serve serve model-store/my-model.mar --server asgi --address 0.0.0.0 "
        "--certificate cert.pem --key key.pem",
        "d2serve serve model-store/my-model.mar --server ray",
    ),
)
def serve(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Archive (.mar), or a folder with its content; with --server asgi several, or "
            "a folder that contains one.",
            show_default=str(BUNDLED_ARCHIVE),
        ),
    ] = None,
    server: Annotated[ServerKind, typer.Option(help="Server to start.")] = ServerKind.TORCHSERVE,
    port: Annotated[int, typer.Option(help="Port of the inference API.")] = 8080,
    address: Annotated[
        str, typer.Option(help="IP address to listen on; 0.0.0.0 accepts other machines.")
    ] = LOOPBACK,
    metrics_address: Annotated[
        str, typer.Option(help="IP address of TorchServe's metrics.")
    ] = LOOPBACK,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate; enables HTTPS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Name of the model, if it is only one.",
            show_default="the archive's",
            rich_help_panel=ASGI_PANEL,
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that clients need, instead of D2SERVE_SERVER_TOKEN or a "
            "generated one.",
            rich_help_panel=ASGI_PANEL,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Origin whose web pages may send requests, such as https://example.org, or *; "
            "repeatable.",
        ),
    ] = None,
    forwarded_allow_ips: Annotated[
        str,
        typer.Option(
            metavar="IP,IP",
            help="Reverse proxies whose X-Forwarded-* headers count; * for all.",
            rich_help_panel=ASGI_PANEL,
        ),
    ] = LOOPBACK,
    forward_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Restart the server when a forward pass takes longer.",
            rich_help_panel=ASGI_PANEL,
        ),
    ] = 120,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the gRPC API, such as 8001.",
            show_default="no gRPC",
            rich_help_panel=ASGI_PANEL,
        ),
    ] = None,
    playground: Annotated[
        bool, typer.Option(help="Serve the playground page at /.", rich_help_panel=ASGI_PANEL)
    ] = True,
) -> None:
    """Serve models in the foreground.

    Ctrl-C or SIGTERM stops the server after it has completed the requests in progress.
    """
    archives = models or [BUNDLED_ARCHIVE]
    pair = _certificate(certificate, key)
    if server is ServerKind.ASGI:
        if metrics_address != LOOPBACK:
            raise typer.BadParameter(
                "the ASGI server's metrics are on the port of the inference API, at /metrics",
                param_hint="'--metrics-address'",
            )
        with requires_extra("asgi"):
            from d2serve.cli.serve_asgi import AsgiOptions, serve_asgi

            options = AsgiOptions(
                name=name,
                token_file=token_file,
                cors_origins=tuple(cors_origin or ()),
                forwarded_allow_ips=forwarded_allow_ips,
                forward_timeout_s=forward_timeout,
                grpc_port=grpc_port,
                playground=playground,
            )
            serve_asgi(archives, address, port, pair, options)
        return
    if server is ServerKind.RAY:
        from d2serve.cli.serve_ray import check_options, serve_ray
        from d2serve.servers.ray.local import LocalConfig

        check_options([parameter.name or "" for parameter in _given(context)])
        origins = tuple(cors_origin or ())
        config = LocalConfig(address, port, name, origins, forward_timeout, playground)
        serve_ray(archives, config, token_file)
        return
    _reject_asgi_options(context)
    if len(archives) > 1:
        raise typer.BadParameter(
            "one process of TorchServe serves one model here; use --server asgi for several",
            param_hint="'MODEL...'",
        )
    with requires_extra("torchserve"):
        from d2serve.servers.torchserve.launcher.network import Exposure

        exposure = Exposure(address, metrics_address, pair, tuple(cors_origin or ()))
    _serve_torchserve(archives[0], port, exposure)


def _reject_asgi_options(context: typer.Context) -> None:
    """Reject options of the ASGI server, which would have no effect.

    Raises:
        typer.BadParameter: an option is given.
    """
    for parameter in _given(context):
        if getattr(parameter, "rich_help_panel", None) == ASGI_PANEL:
            raise typer.BadParameter("requires --server asgi", param_hint=repr(parameter.opts[0]))


def _given(context: typer.Context) -> Iterator[Any]:
    """Yield the parameters on the command line."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name != "DEFAULT":
            yield parameter


def _serve_torchserve(model: Path, port: int, exposure: "Exposure") -> None:
    with requires_extra("torchserve"):
        from d2serve.servers.torchserve.launcher.ports import Ports
        from d2serve.servers.torchserve.launcher.server import running_server

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
    from d2serve.client.folder import result_console, result_table, send_images
    from d2serve.client.http import HttpTransport
    from d2serve.client.sender import Sender

    with requires_extra("torchserve"):
        from d2serve.servers.torchserve.launcher.server import running_server

    archive = _bundled_archive(repository)
    overlays, logs = repository / "out", repository / "logs" / "demo"
    typer.echo(f"Starting TorchServe with {archive}")
    with (
        running_server(archive, log_dir=logs) as server,
        Sender(HttpTransport(f"{server.url}/invocations")) as client,
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
    return startup_message(
        server.model_name, server.url, server.exposure.certificate, server.exposure.needs_token
    )


def _warnings(server: "Server") -> Iterator[str]:
    """Yield access notes for a server that other machines can reach."""
    from d2serve.servers.exposure import url_host

    if not server.exposure.needs_token:
        return
    yield f"other machines reach it at {url_host(server.exposure.address)}:{server.ports.inference}"
    yield f"TOKEN is inference.key in {server.key_file}"
    if server.exposure.certificate is None:
        yield "traffic and token are not encrypted; --certificate and --key enable HTTPS"


def _certificate(chain: Path | None, key: Path | None) -> "Certificate | None":
    from d2serve.servers.exposure import Certificate

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
