"""Unpack the archives of the served models, and name the models after them."""

import re
from collections.abc import Sequence
from pathlib import Path

from d2serve.errors import CommandError
from d2serve.serving.archive_files import unpack_archive

NAME = re.compile(r"[^A-Za-z0-9_-]+")


def unpack_models(models: Sequence[Path], home: Path) -> dict[str, str]:
    """Unpack archives into `home`; return the folders by model name.

    Raises:
        ArchiveError: an archive is missing, damaged or malicious.
        CommandError: two archives have the same name.
    """
    folders: dict[str, str] = {}
    for model in models:
        name = model_name_of(model)
        if name in folders:
            raise CommandError(
                f"{model} and another model have the name {name!r}; rename one of the archives"
            )
        folder = model if model.is_dir() else home / name
        if not model.is_dir():
            folder.mkdir()
            unpack_archive(model, folder)
        folders[name] = str(folder.resolve())
    return folders


def model_name_of(model: Path) -> str:
    """The name of a model: that of its archive, with other characters replaced.

    Examples:
        >>> model_name_of(Path("model-store/my model.mar"))
        'my_model'
    """
    name = model.resolve().name
    for suffix in (".mar", ".tar.gz"):
        name = name.removesuffix(suffix)
    return NAME.sub("_", name)
