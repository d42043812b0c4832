"""The command `d2serve predict`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.cli.options import Masks, examples, requires_extra

if TYPE_CHECKING:
    from d2serve.client.transport import Transport

PANEL = "Serving"
DATASET = "Dataset"
# An environment variable, because other users of the machine can read command lines.
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105

app = typer.Typer()


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve predict image.jpg",
        "d2serve predict photos/ --overlay out/",
        "d2serve predict photos/ --coco annotations.json --score-threshold 0.5",
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
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Model of a server of several.", show_default="the first one"
        ),
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
    coco: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a COCO dataset with the detections as annotations, instead of a table.",
            rich_help_panel=DATASET,
        ),
    ] = None,
    masks: Annotated[
        Masks, typer.Option(help="Encoding of its masks.", rich_help_panel=DATASET)
    ] = Masks.POLYGON,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Minimum score of its annotations.",
            show_default="the model's",
            rich_help_panel=DATASET,
        ),
    ] = None,
) -> None:
    """Send images to a server or a SageMaker endpoint.

    Exits with 1 if an image failed; the remaining images are sent all the same.
    """
    from d2serve.client.images import find_images

    if coco is None:
        _check_unused(masks, score_threshold)
    elif as_json or overlay:
        raise typer.BadParameter("--coco excludes --json and --overlay")
    # Check before a connection is opened.
    for image in images:
        find_images(image)
    if endpoint:
        transport = _endpoint_transport(endpoint, model, region, target_model)
    else:
        transport = _http_transport(url, model, ca)
    if coco:
        complete = _write_dataset(transport, images, coco, masks, score_threshold)
    else:
        complete = _show(transport, images, overlay, as_json)
    if not complete:
        raise typer.Exit(1)


def _check_unused(masks: Masks, score_threshold: float | None) -> None:
    if masks is not Masks.POLYGON or score_threshold is not None:
        raise typer.BadParameter("--masks and --score-threshold belong to --coco")


def _write_dataset(
    transport: "Transport",
    images: list[Path],
    target: Path,
    masks: Masks,
    score_threshold: float | None,
) -> bool:
    from d2serve.cli.coco_dataset import write_dataset
    from d2serve.client import Client

    with Client(transport) as client:
        return write_dataset(client, images, target, masks, score_threshold)


def _show(transport: "Transport", images: list[Path], overlays: Path | None, as_json: bool) -> bool:
    """Print the results; False if an image failed."""
    from d2serve.client.folder import result_console, result_table, send_images
    from d2serve.client.sender import Sender

    with Sender(transport) as client:
        results = send_images(client, images, overlays)
    if as_json:
        typer.echo(json.dumps([result.as_json() for result in results]))
    else:
        result_console().print(result_table(results))
    return not any(result.failed for result in results)


def _http_transport(url: str | None, model: str | None, ca: Path | None) -> "Transport":
    from d2serve.client.http import HttpTransport
    from d2serve.client.urls import DEFAULT_SERVER, route_url

    route = route_url(url or DEFAULT_SERVER, model)
    return HttpTransport(route, token=os.environ.get(TOKEN_VARIABLE), ca=ca)


def _endpoint_transport(
    name: str, model: str | None, region: str | None, target_model: str | None
) -> "Transport":
    if model:
        raise typer.BadParameter("--model belongs to --url; an endpoint has --target-model")
    with requires_extra("aws"):
        import boto3

        from d2serve.client.sagemaker import endpoint_transport
    session = boto3.Session(region_name=region)
    return endpoint_transport(name, session, target_model=target_model)
