"""Check and read the members of archives and packages of unknown origin."""

import gzip
import json
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from d2serve.building.packing import MANIFEST, sums_of
from d2serve.errors import CommandError
from d2serve.serving.integrity import SUMS_FILE, IntegrityError, check_sums, is_inside, parse_sums
from d2serve.serving.model_config import SERVING_FILE

# Weights shrink by a tenth when they are packed, texts by nine tenths at most.
MOST_TIMES = 20
SMALL_BYTES = 256_000_000
MOST_FILES = 10_000


def check_unpacked_size(packed: zipfile.ZipFile, source: Path) -> None:
    """Passes a zip file that is no bomb: it unpacks to little, or to little more than it is.

    Raises:
        CommandError: there are too many files in it, or they are too large.
    """
    entries = packed.infolist()
    if len(entries) > MOST_FILES:
        raise CommandError(
            f"{source} holds {len(entries)} files; more than {MOST_FILES} are refused"
        )
    unpacked, most = sum(entry.file_size for entry in entries), most_bytes(source)
    if unpacked > most:
        raise _too_large(source, most)


def gunzipped(source: Path) -> bytes:
    """A gzip file's whole content, its checksum passed.

    Raises:
        CommandError: it is a bomb.
        OSError, EOFError, zlib.error: it is damaged.
    """
    most = most_bytes(source)
    with gzip.open(source) as packed:
        content = packed.read(most + 1)
    if len(content) > most:
        raise _too_large(source, most)
    return content


def most_bytes(source: Path) -> int:
    """To how much an archive may unpack."""
    return max(SMALL_BYTES, MOST_TIMES * source.stat().st_size)


def check_checkpoint_size(checkpoint: Path) -> None:
    """Passes a checkpoint that is no zip file, or no bomb.

    Raises:
        CommandError: it is one.
    """
    try:
        with zipfile.ZipFile(checkpoint) as packed:
            check_unpacked_size(packed, checkpoint)
    except (OSError, zipfile.BadZipFile):  # `open_checkpoint` says what it is then
        return


def content_of(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """No more than the entry says, which `ZipFile.read` unpacks before it notices."""
    with packed.open(entry) as file:
        return file.read(entry.file_size)


def _too_large(source: Path, most: int) -> CommandError:
    return CommandError(
        f"{source} unpacks to more than {most / 1e6:.0f} MB; take one that you trust"
    )


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
