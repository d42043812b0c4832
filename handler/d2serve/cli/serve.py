"""The command `d2serve serve`."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from d2serve.cli.demo import BUNDLED_ARCHIVE
from d2serve.cli.options import examples, requires_extra
from d2serve.errors import CommandError

if TYPE_CHECKING:
    from d2serve.servers.exposure import Certificate

PANEL = "Serving"
ASGI_PANEL = "Options of --server asgi and ray"
LOOPBACK = "127.0.0.1"

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
        from d2serve.cli.serve_torchserve import serve_torchserve
        from d2serve.servers.torchserve.launcher.network import Exposure

    exposure = Exposure(address, metrics_address, pair, tuple(cors_origin or ()))
    serve_torchserve(archives[0], port, exposure)


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


def _certificate(chain: Path | None, key: Path | None) -> "Certificate | None":
    from d2serve.servers.exposure import Certificate

    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise CommandError("--certificate and --key belong together; give both or neither")
    return Certificate(chain, key)
