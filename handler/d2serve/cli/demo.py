"""The command `d2serve demo`, and the bundled model."""

from pathlib import Path
from typing import Annotated

import typer

from d2serve.cli.options import examples, requires_extra
from d2serve.errors import CommandError

PANEL = "Serving"
BUNDLED_ARCHIVE = Path("model-store", "shapes.mar")
BUNDLED_MODEL = Path("models", "shapes")

app = typer.Typer()


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
