"""Find and unpack the archives of the served models, and name the models after them."""

import re
from collections.abc import Sequence
from pathlib import Path

from d2serve.errors import ArchiveError, CommandError
from d2serve.serving.archive_files import unpack_archive
from d2serve.serving.integrity import SUMS_FILE
from d2serve.serving.model_config import MODEL_CONFIG_FILE

NAME = re.compile(r"[^A-Za-z0-9_-]+")
SUFFIXES = (".mar", ".tar.gz")
# An unpacked archive contains all of them; a damaged one is recognized by any.
MARKERS = (SUMS_FILE, MODEL_CONFIG_FILE, "MAR-INF")
MAX_LISTED = 10


def unpack_models(models: Sequence[Path], home: Path, name: str = "") -> dict[str, str]:
    """Unpack archives into `home`; return the folders by model name.

    Args:
        models: archives, their unpacked folders, or folders that contain one of either.
        home: an empty folder.
        name: name of the only model; empty to name models after their archives.

    Raises:
        ArchiveError: an archive is missing, damaged or malicious, or a folder does not contain
            exactly one.
        CommandError: two archives have the same name, or `name` is not valid.
    """
    if name:
        _check_name(name, models)
    folders: dict[str, str] = {}
    for model in map(find_archive, models):
        model_name = name or model_name_of(model)
        if model_name in folders:
            raise CommandError(
                f"{model} and another model have the name {model_name!r}; rename one of the "
                "archives"
            )
        folder = model if model.is_dir() else home / model_name
        if not model.is_dir():
            folder.mkdir()
            unpack_archive(model, folder)
        folders[model_name] = str(folder.resolve())
    return folders


def find_archive(path: Path) -> Path:
    """Find the archive in a folder, such as the one that Kubernetes mounts at /mnt/models.

    Args:
        path: an archive, its unpacked folder, or a folder that contains one of either.

    Raises:
        ArchiveError: the folder contains no archive, or several.
    """
    if not path.is_dir() or _is_unpacked(path):
        return path
    entries = sorted(path.iterdir())
    found = [entry for entry in entries if _is_unpacked(entry) or _is_packed(entry)]
    if len(found) == 1:
        return found[0]
    accepted = "expected one .mar archive, one .tar.gz package, or the content of one"
    if found:
        names = _listed(found)
        raise ArchiveError(
            f"{path} contains {len(found)} archives ({names}), {accepted}; give the path of one"
        )
    raise ArchiveError(
        f"{path} contains no archive (its content: {_listed(entries) or 'none'}), {accepted}; "
        "`d2serve archive` builds a .mar archive"
    )


def model_name_of(model: Path) -> str:
    """The name of a model: that of its archive, with other characters replaced.

    Examples:
        >>> model_name_of(Path("model-store/my model.mar"))
        'my_model'
    """
    name = model.resolve().name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return NAME.sub("_", name)


def _check_name(name: str, models: Sequence[Path]) -> None:
    if len(models) > 1:
        raise CommandError(
            f"--name {name} was given with {len(models)} models, accepted is one; name the other "
            "archives as their models"
        )
    if NAME.search(name):
        raise CommandError(
            f"--name {name!r} is not the name of a model: use letters, digits, - and _"
        )


def _is_unpacked(path: Path) -> bool:
    return any((path / marker).exists() for marker in MARKERS)


def _is_packed(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and path.is_file()


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths[:MAX_LISTED]]
    more = [f"{len(paths) - MAX_LISTED} more"] if len(paths) > MAX_LISTED else []
    return ", ".join(names + more)
