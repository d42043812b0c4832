"""The command `d2serve batch`."""

from enum import Enum
from typing import Annotated

import typer

from d2serve.cli.options import Masks, examples, require_packages

PANEL = "Serving"
RAY = "Ray"

app = typer.Typer()


class BatchFormat(str, Enum):
    """Choices of --format."""

    PARQUET = "parquet"
    COCO = "coco"
    JSONL = "jsonl"


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve batch model-store/shapes.mar --input photos/ --output out/photos --format coco",
        "d2serve batch s3://bucket/shapes.mar --input s3://bucket/in --output s3://bucket/out "
        "--address auto",
    ),
)
def batch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Archive, by path or s3:// URI.")],
    source: Annotated[
        str,
        typer.Option("--input", help="Folder, s3:// prefix, or text file with a path per line."),
    ],
    output: Annotated[str, typer.Option(help="Folder or s3:// prefix of the results.")],
    file_format: Annotated[
        BatchFormat, typer.Option("--format", help="One more file beside the Parquet parts.")
    ] = BatchFormat.PARQUET,
    masks: Annotated[Masks, typer.Option(help="Encoding of the masks.")] = Masks.RLE,
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Minimum score.", show_default="the archive's"),
    ] = None,
    overlays: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder or s3:// prefix for the images with drawn detections.",
            show_default=False,
        ),
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            help="Ray cluster, or auto for the running one.",
            show_default="a Ray of this machine",
            rich_help_panel=RAY,
        ),
    ] = "",
    actors: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of processes with the model.",
            show_default="one per GPU or node",
            rich_help_panel=RAY,
        ),
    ] = 0,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0, help="GPUs per process.", show_default="1 if there are any", rich_help_panel=RAY
        ),
    ] = None,
) -> None:
    """Process a folder of images offline with Ray Data.

    An interrupted job continues when the same command runs again. Images that cannot be processed
    are listed in failed.jsonl, and do not change the exit code.
    """
    # Not by an import: Ray reads its variables when it is imported.
    require_packages(("ray", "pyarrow"), "ray")
    from d2serve.servers.ray.batch.export import FAILED_FILE, export, write_failed
    from d2serve.servers.ray.batch.lock import locked
    from d2serve.servers.ray.batch.run import BatchConfig, run_batch
    from d2serve.servers.ray.batch.storage import Storage

    config = BatchConfig(
        model=model,
        input=source,
        output=output,
        masks=masks.value,
        overlays=overlays,
        score_threshold=score_threshold,
        address=address,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
    )
    storage = Storage(output)
    with locked(storage.root, storage.is_remote):
        job = run_batch(config, lambda line: typer.echo(line, err=True))
        failed, total = write_failed(storage, job), sum(job.lists)
        if file_format is not BatchFormat.PARQUET:
            typer.echo(f"wrote {export(storage, job, file_format.value)}", err=True)
    listed = f", listed in {output}/{FAILED_FILE}" if failed else ""
    typer.echo(f"done: {total - failed} images in {output}/parts; {failed} failed{listed}")
