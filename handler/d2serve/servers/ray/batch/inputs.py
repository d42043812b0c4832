"""The images of a job: of a folder, of an S3 prefix or of a manifest."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from d2serve.errors import CommandError
from d2serve.servers.ray.batch.storage import S3

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy")


@dataclass(frozen=True)
class Listing:
    """The images of an input.

    Attributes:
        paths: absolute paths or s3:// URIs, each once, in a fixed order.
        skipped: number of other files in the folder.
        repeated: number of paths that the manifest contains again.
    """

    paths: tuple[str, ...]
    skipped: int = 0
    repeated: int = 0


def list_images(source: str, excluded: tuple[str, ...] = ()) -> Listing:
    """List the images of an input.

    Args:
        source: a folder, which is searched with its subfolders, an s3:// prefix, or a text file
            with a path per line; relative ones start at the file's folder.
        excluded: absolute paths of folders inside it that contain results.

    Raises:
        CommandError: the input does not exist, or contains no image.
    """
    path = Path(source)
    if source.startswith(S3):
        found = _s3_files(source, excluded)
    elif path.is_dir():
        found = list(_walk(path.absolute(), frozenset(), excluded))
    elif path.is_file():
        return _manifest(path)
    else:
        raise CommandError(f"--input {source} does not exist; give a folder, s3:// or a manifest")
    images = sorted(file for file in found if file.lower().endswith(SUFFIXES))
    if not images:
        raise CommandError(f"--input {source} has no image; looked for *{', *'.join(SUFFIXES)}")
    return Listing(tuple(map(storable, images)), len(found) - len(images))


def storable(path: str) -> str:
    r"""Replace bytes of a file name that are not UTF-8, which Parquet cannot store, by \udcXX."""
    return path.encode("utf-8", "backslashreplace").decode()


def _walk(
    folder: Path, parents: frozenset[tuple[int, int]], excluded: tuple[str, ...]
) -> Iterator[str]:
    """Files below a folder; links to folders are followed unless they lead back to a parent."""
    stat = folder.stat()
    identity = (stat.st_dev, stat.st_ino)
    if str(folder) in excluded or identity in parents:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(Path(entry.path), parents | {identity}, excluded)
            else:  # also a broken link, which becomes a row with an error
                yield entry.path


def _s3_files(source: str, excluded: tuple[str, ...]) -> list[str]:
    from pyarrow import fs

    files, prefix = fs.FileSystem.from_uri(source)
    infos = files.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True))
    paths = [f"{S3}{info.path}" for info in infos if info.is_file]
    outputs = tuple(f"{each.rstrip('/')}/" for each in excluded)
    return [path for path in paths if not path.startswith(outputs)]


def _manifest(path: Path) -> Listing:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CommandError(
            f"--input {path} is not text in UTF-8 ({error.reason}); give a text file with a path "
            "per line, or a folder"
        ) from error
    entries = [line for line in lines if line.strip()]
    folder = str(path.absolute().parent)
    full = [
        entry if entry.startswith(S3) else os.path.normpath(os.path.join(folder, entry))  # noqa: PTH118
        for entry in entries
    ]
    unique = tuple(dict.fromkeys(map(storable, full)))
    if not unique:
        raise CommandError(f"--input {path} contains no path; write a path per line")
    return Listing(unique, repeated=len(full) - len(unique))
