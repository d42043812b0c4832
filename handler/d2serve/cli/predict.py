"""The command `d2serve predict`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.cli.options import examples, requires_extra

if TYPE_CHECKING:
    from d2serve.client.transport import Transport

PANEL = "Serving"
# An environment variable, because other users of the machine can read command lines.
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105

app = typer.Typer()


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve predict image.jpg",
        "d2serve predict photos/ --overlay out/",
        "d2serve predict image.jpg --endpoint shapes --region eu-central-1",
    )
    + f"\n\nA server's token is read from the environment variable {TOKEN_VARIABLE}.",
)
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Images, and folders that are searched for them."),
    ],
    url: Annotated[
        str | None,
        typer.Option(help="URL of the server.", show_default="http://127.0.0.1:8080/invocations"),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of certificates to trust.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="SageMaker endpoint, instead of a URL.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="The endpoint's region.", show_default="the AWS configuration's"),
    ] = None,
    target_model: Annotated[
        str | None, typer.Option(metavar="NAME.tar.gz", help="Model of a multi-model endpoint.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write images with drawn detections to this folder."),
    ] = None,
) -> None:
    """Send images to a server or a SageMaker endpoint.

    Exits with 1 if an image failed; the remaining images are sent all the same.
    """
    from d2serve.client.folder import result_console, result_table, send_images
    from d2serve.client.images import find_images
    from d2serve.client.sender import Sender

    # Check before a connection is opened.
    for image in images:
        find_images(image)
    if endpoint:
        transport = _endpoint_transport(endpoint, region, target_model)
    else:
        transport = _http_transport(url, ca)
    with Sender(transport) as client:
        results = send_images(client, images, overlay)
    if as_json:
        typer.echo(json.dumps([result.as_json() for result in results]))
    else:
        result_console().print(result_table(results))
    if any(result.failed for result in results):
        raise typer.Exit(1)


def _http_transport(url: str | None, ca: Path | None) -> "Transport":
    from d2serve.client.http import DEFAULT_URL, HttpTransport

    return HttpTransport(url or DEFAULT_URL, token=os.environ.get(TOKEN_VARIABLE), ca=ca)


def _endpoint_transport(name: str, region: str | None, target_model: str | None) -> "Transport":
    with requires_extra("aws"):
        import boto3

        from d2serve.client.sagemaker import endpoint_transport
    session = boto3.Session(region_name=region)
    return endpoint_transport(name, session, target_model=target_model)
