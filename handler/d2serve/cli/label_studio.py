"""The command `d2serve label-studio`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from d2serve.cli.options import examples, requires_extra
from d2serve.errors import CommandError
from d2serve.servers.exposure import LOOPBACK, check_address, is_loopback, url_host
from d2serve.text_files import decode_text

app = typer.Typer()
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
DIGEST_CHARACTERS = 8
MODEL = "Model"
LABEL_STUDIO = "Label Studio"


@app.command(
    "label-studio",
    epilog=examples(
        "d2serve label-studio model-store/shapes.mar --label-studio-url http://127.0.0.1:8080 "
        "--token-file token.txt",
        "d2serve label-studio --url http://127.0.0.1:8081 --document-root /data/images",
    ),
)
def label_studio(
    model: Annotated[
        Path | None, typer.Argument(help="Archive to run in this process.", show_default=False)
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Server of the model.", rich_help_panel=MODEL)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Model of a server of several.", rich_help_panel=MODEL)
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="SageMaker endpoint.", rich_help_panel=MODEL)
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region.", rich_help_panel=MODEL)] = None,
    target_model: Annotated[
        str | None,
        typer.Option(help="NAME.tar.gz of a multi-model endpoint.", rich_help_panel=MODEL),
    ] = None,
    model_token: Annotated[
        str | None,
        typer.Option(envvar="D2SERVE_TOKEN", help="Bearer token of --url.", rich_help_panel=MODEL),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of MODEL.", rich_help_panel=MODEL)] = "cpu",
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Minimum score.", rich_help_panel=MODEL),
    ] = None,
    keypoints: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of the keypoints in the model's order, for labels without model_index.",
            show_default="COCO's",
            rich_help_panel=MODEL,
        ),
    ] = "",
    polygon_tolerance: Annotated[
        float,
        typer.Option(min=0, help="Maximum error of polygons in pixels.", rich_help_panel=MODEL),
    ] = 1.0,
    model_version: Annotated[
        str | None,
        typer.Option(
            help="Version that Label Studio stores with predictions.",
            show_default="the model's name, and the digest of an archive",
            rich_help_panel=MODEL,
        ),
    ] = None,
    label_studio_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Label Studio.", rich_help_panel=LABEL_STUDIO),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Access token of Label Studio.", rich_help_panel=LABEL_STUDIO
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Further host of images; repeatable.",
            rich_help_panel=LABEL_STUDIO,
        ),
    ] = None,
    document_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder of Label Studio's local files, if this machine has it.",
            rich_help_panel=LABEL_STUDIO,
        ),
    ] = None,
    address: Annotated[str, typer.Option(help="IP address to listen on.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9090,
    basic_auth_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with USER:PASSWORD that Label Studio sends; required beyond loopback.",
        ),
    ] = None,
) -> None:
    """Pre-label the tasks of Label Studio: run an ML backend."""
    from d2serve.integrations.keypoints import COCO_KEYPOINTS
    from d2serve.integrations.predictor import open_predictor, split_names

    if sum(map(bool, (model, url, endpoint))) != 1:
        raise typer.BadParameter("give one of MODEL, --url and --endpoint")
    check_address(address)
    basic_auth = _secret(basic_auth_file, "--basic-auth-file")
    if not is_loopback(address) and ":" not in basic_auth:
        raise CommandError(
            f"--address {address} is reachable from other machines; give --basic-auth-file with "
            "USER:PASSWORD, and enter both in Label Studio's model settings"
        )
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # URLs contain signatures
    with requires_extra("asgi"):
        from d2serve.integrations.label_studio.app import serve
        from d2serve.integrations.label_studio.backend import Backend
        from d2serve.integrations.label_studio.images import ImageSource
    images = ImageSource(
        label_studio_url,
        token=_secret(token_file, "--token-file"),
        allowed_hosts=allow_host or (),
        document_root=document_root,
    )
    predictor = open_predictor(
        url=url,
        model=model or name,
        endpoint=endpoint,
        token=model_token if url else None,
        region=region,
        target_model=target_model,
        device=device,
    )
    backend = Backend(
        predictor,
        images,
        model_version or _version(model, target_model or name or endpoint or "d2serve"),
        score_threshold,
        split_names(keypoints) or COCO_KEYPOINTS,
        polygon_tolerance,
    )
    # The first request for the classes fails if the server cannot be reached.
    typer.echo(f"classes: {', '.join(predictor.class_names)}")
    typer.echo(f"add http://{url_host(address)}:{port} to a project: Settings > Model > Connect")
    serve(backend, address, port, basic_auth)


def _secret(file: Path | None, option: str) -> str:
    """The content of a file without white space around it; empty without a file."""
    try:
        secret = decode_text(file.read_bytes()).strip() if file else ""
    except (OSError, UnicodeError) as error:
        raise CommandError(f"{option} {file} cannot be read: {error}") from error
    if file and not secret:
        raise CommandError(f"{option} {file} is empty; write the secret to it")
    return secret


def _version(archive: Path | None, name: str) -> str:
    """A version that changes with the archive."""
    if archive is None:
        return name
    if not archive.is_file():
        return archive.name
    from d2serve.serving.integrity import sha256_of

    return f"{archive.name.partition('.')[0]}-{sha256_of(archive)[:DIGEST_CHARACTERS]}"
