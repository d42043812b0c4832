"""`d2serve predict --coco`: a folder of images to a COCO dataset of pre-labels."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from d2serve.cli.options import Masks
from d2serve.client import Client
from d2serve.client.images import find_images
from d2serve.detections import Detections
from d2serve.errors import CommandError, PredictionError
from d2serve.integrations.coco import to_coco_dataset


def write_dataset(
    client: Client,
    sources: Sequence[Path],
    target: Path,
    masks: Masks = Masks.POLYGON,
    score_threshold: float | None = None,
) -> bool:
    """Send images and write their detections as a COCO dataset; print the errors of images.

    Args:
        client: the model.
        sources: image files, and folders that are searched with their subfolders. The dataset names
            an image by its path below its folder.
        target: the file; its folder is created.
        masks: encoding of the masks.
        score_threshold: minimum score; None for the model's.

    Returns:
        True if all images are in the dataset; False if the server rejected one.

    Raises:
        CommandError: a source contains no image, or two images have the same name.
        PredictionError, UnreachableError: the names of the classes cannot be requested.
    """
    _check_names(sources)
    failed: list[PredictionError] = []
    # Polygons are traced here: those of a response leave no exact area.
    requested = "none" if masks is Masks.NONE else "rle"
    options: dict[str, Any] = {"masks": requested, "score_threshold": score_threshold}

    def detected() -> Iterator[tuple[str, Detections]]:
        for source in sources:
            for file, found in client.predict_folder(source, **options):
                if isinstance(found, PredictionError):
                    failed.append(found)
                    typer.echo(f"{file}: {found}", err=True)
                else:
                    yield _name(file, source), found

    mask_format = "rle" if masks is Masks.RLE else "polygon"
    dataset = to_coco_dataset(detected(), client.class_names, mask_format=mask_format)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(dataset), encoding="utf-8")
    counts = f"{len(dataset['images'])} images, {len(dataset['annotations'])} annotations"
    typer.echo(f"{target}: {counts}")
    return not failed


def _name(file: Path, source: Path) -> str:
    return file.relative_to(source).as_posix() if source.is_dir() else file.name


def _check_names(sources: Sequence[Path]) -> None:
    files: dict[str, Path] = {}
    for source in sources:
        for file in find_images(source):
            other = files.setdefault(_name(file, source), file)
            if other is not file:
                raise CommandError(
                    f"{other} and {file} would have the same name in the dataset; give a folder "
                    "that contains both"
                )
