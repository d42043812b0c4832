"""What lies in archives and packages of unknown origin: plain files, each inside the archive."""

import json
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handler.integrity import SUMS_FILE, IntegrityError, check_sums, is_inside, parse_sums
from handler.serving_file import SERVING_FILE
from scripts.errors import CommandError
from scripts.packing import MANIFEST, sums_of
from scripts.unpacking import check_unpacked_size, content_of


def read_archive(archive: Path) -> dict[str, bytes]:
    """The files of an archive, by name.

    Raises:
        CommandError: there is no such archive, it is damaged or none that `make archive` wrote, or
            its files are not those of its sums.
    """
    if not archive.is_file():
        raise CommandError(f"{archive} does not exist; `make archive` builds it")
    try:
        with zipfile.ZipFile(archive) as packed:
            check_zip(packed, archive)
            files = {
                entry.filename: content_of(packed, entry)
                for entry in packed.infolist()
                if not entry.is_dir()
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise CommandError(f"{archive} is damaged ({error}); build it again") from error
    for name in (MANIFEST, SERVING_FILE):
        if name not in files:
            raise CommandError(f"{archive} holds no {name}; `make archive` writes one")
    _check_sums(files, archive)
    return files


def model_of(manifest: bytes, source: Path) -> dict[str, Any]:
    """The section of a manifest that tells name, version and handler.

    Raises:
        CommandError: it is not as TorchServe's archiver writes it.
    """
    try:
        model = json.loads(manifest)["model"]
        if not {"modelName", "modelVersion"} <= model.keys():
            raise KeyError("modelName and modelVersion")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{source}: {MANIFEST} is none of ours ({error!r})") from error
    section: dict[str, Any] = model
    return section


def check_zip(packed: zipfile.ZipFile, source: Path) -> None:
    """Passes a zip file of plain files and folders that stay where they are unpacked, and small.

    Raises:
        CommandError: naming the first other entry.
    """
    entries = packed.infolist()
    _check_names((entry.filename for entry in entries), source)
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(source, entry.filename, "a link")
    check_unpacked_size(packed, source)


def check_tar(packed: tarfile.TarFile, source: Path) -> None:
    """Passes a tar file of plain files and folders that stay where they are unpacked.

    Raises:
        CommandError: naming the first other entry.
    """
    entries = packed.getmembers()
    _check_names((entry.name for entry in entries), source)
    for entry in entries:
        if not (entry.isreg() or entry.isdir()) or entry.issparse():
            raise _refused(source, entry.name, "a link, a device or a file with holes")


def _check_names(names: Iterable[str], source: Path) -> None:
    for name, count in Counter(names).items():
        if not is_inside(name):
            raise _refused(source, name, "a path that leads out of it")
        if count > 1:
            raise _refused(source, name, f"in it {count} times")


def _refused(source: Path, name: str, what: str) -> CommandError:
    return CommandError(f"{source} holds {name!r}, which is {what}; take one that you trust")


def _check_sums(files: dict[str, bytes], source: Path) -> None:
    if SUMS_FILE not in files:  # older archives have none
        return
    digests = sums_of(files)
    try:
        check_sums(parse_sums(files[SUMS_FILE]), files, digests.__getitem__)
    except IntegrityError as error:
        raise CommandError(f"{source}: {error}") from error
