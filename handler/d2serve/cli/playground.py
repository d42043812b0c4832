"""The command `d2serve playground`."""

import logging
import os
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from d2serve.cli.options import Region, examples, requires_extra
from d2serve.errors import CommandError
from d2serve.servers.exposure import LOOPBACK
from d2serve.text_files import decode_text

if TYPE_CHECKING:
    from d2serve.client.transport import AsyncTransport, Reply

app = typer.Typer()
PANEL = "Serving"
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve playground --url http://127.0.0.1:8080/predictions/shapes",
        "d2serve playground --endpoint shapes --region eu-central-1 --open",
    )
    + f"\n\nA server's token is read from --token-file, or the environment variable "
    f"{TOKEN_VARIABLE}.",
)
def playground(
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of a prediction route, or of a server.",
            show_default="http://127.0.0.1:8080/invocations",
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of certificates to trust.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the server's token.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="SageMaker endpoint, instead of a URL.")
    ] = None,
    region: Region = None,
    target_model: Annotated[
        str | None, typer.Option(metavar="NAME.tar.gz", help="Model of a multi-model endpoint.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 for a free one.")
    ] = 8090,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
) -> None:
    """Serve the playground page in front of a server or a SageMaker endpoint.

    It listens on loopback only: a client that reaches it uses your token or your AWS credentials.
    """
    from d2serve.client.connect import Target, connect_async
    from d2serve.client.urls import DEFAULT_URL, route_url

    if url and endpoint:
        raise typer.BadParameter("give either --url or --endpoint")
    if endpoint and (token_file or ca):
        raise typer.BadParameter("--token-file and --ca belong to --url; an endpoint has neither")
    if url and "@" in urlsplit(url).netloc:
        # The page shows the URL.
        raise typer.BadParameter("--url contains a user or password; use a server's --token-file")
    with requires_extra("asgi"):
        from d2serve.servers.asgi.listener import open_listener
        from d2serve.servers.playground import routes
        from d2serve.servers.playground.forwarding import create_app, serve
    if endpoint:
        target = Target(endpoint, region=region, target_model=target_model)
        place = routes.Target("sagemaker", None, endpoint, region, target_model)
    else:
        token = _token(token_file) or os.environ.get(TOKEN_VARIABLE)
        target = Target(
            url or DEFAULT_URL, token=token, ca=ca, region=region, target_model=target_model
        )
        place = routes.Target("url", route_url(target.name))
    connection = Forwarding(connect_async(target))
    config = routes.PageConfig((endpoint or place.url or "",), place, token=False)
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    listener = open_listener(LOOPBACK, port)
    page = f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
    typer.echo(f"the playground in front of {endpoint or place.url} is at {page}")
    if open_browser:
        webbrowser.open(page)
    serve(create_app(config, connection), listener)


@dataclass(frozen=True)
class Forwarding:
    """The connection of the playground: a transport of the client."""

    transport: "AsyncTransport"

    async def send(
        self, body: bytes, content_type: str, accept: str, options: Mapping[str, str]
    ) -> "Reply":
        """Send a prediction request; see `Connection`."""
        from d2serve.client.transport import Payload

        return await self.transport.send(Payload(body, content_type, accept, options))


def _token(file: Path | None) -> str:
    """The content of --token-file; empty without it.

    Raises:
        CommandError: the file cannot be read, or is empty.
    """
    if file is None:
        return ""
    try:
        token = decode_text(file.read_bytes()).strip()
    except (OSError, UnicodeError) as error:
        raise CommandError(f"--token-file {file} cannot be read: {error}") from error
    if not token:
        raise CommandError(f"--token-file {file} is empty; write the server's token to it")
    return token
