"""Unpack archives and packages that may be malicious or damaged."""

import gzip
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from d2serve.errors import ArchiveError
from d2serve.serving.integrity import SUMS_FILE, is_inside, verify_folder

# Weights compress by a tenth, text by nine tenths at most.
MAX_RATIO = 20
# Archives that unpack to less are never rejected for their ratio.
SMALL_BYTES = 256_000_000
MAX_FILES = 10_000
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
# The archive in a package for SageMaker's Ray container.
RAY_MODEL = "model/"
TRUSTED = "use an archive from a source that you trust"


@contextmanager
def unpacked_archive(path: Path) -> Iterator[Path]:
    """Provide the verified folder of a `.mar`, of a SageMaker package or of an unpacked archive.

    A temporary folder exists only within the block. On POSIX systems files that are mapped into
    memory remain usable after it.

    Raises:
        ArchiveError: the archive is missing, damaged or malicious, or its files do not match its
            sums.
    """
    if path.is_dir():
        verify_folder(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="d2serve-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        unpack_archive(path, folder)
        try:
            verify_folder(folder)
        except ArchiveError as error:
            raise ArchiveError(f"{path}: {error}") from error
        yield folder


def unpack_archive(path: Path, folder: Path) -> None:
    """Unpack a `.mar` or a SageMaker package (`.tar.gz`) to a folder.

    Raises:
        ArchiveError: the archive is missing, damaged or malicious.
    """
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist; `d2serve archive` builds a .mar archive")
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, folder)
        elif _is_gzip(path):
            _unpack_package(path, folder)
        else:
            raise ArchiveError(
                f"{path} is neither a .mar archive nor a .tar.gz package; `d2serve archive` "
                "builds a .mar archive"
            )
    except ArchiveError:
        raise
    except (
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError),
        *(tarfile.TarError, zlib.error, EOFError, OSError),
    ) as error:
        raise ArchiveError(f"{path} cannot be unpacked ({error}); build it again") from error


@contextmanager
def open_package(source: Path) -> Iterator[tarfile.TarFile]:
    """Open a package whose gzip checksum and members have been checked.

    Raises:
        ArchiveError: the package is a gzip bomb, or contains anything but files and folders that
            stay inside.
        tarfile.TarError, OSError, EOFError, zlib.error: the package is damaged.
    """
    with tempfile.TemporaryFile() as content:
        _gunzip(source, content)
        content.seek(0)
        with tarfile.open(fileobj=content) as packed:
            check_tar(packed, source)
            yield packed


def check_zip(packed: zipfile.ZipFile, source: Path) -> None:
    """Check that a zip file contains only files and folders that stay inside, and is not a bomb.

    Raises:
        ArchiveError: naming the first offending entry.
    """
    entries = packed.infolist()
    _check_names((entry.filename for entry in entries), source)
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _unsafe_entry(source, entry.filename, "is a link")
    check_unpacked_size(packed, source)


def check_tar(packed: tarfile.TarFile, source: Path) -> None:
    """Check that a tar file contains only files and folders that stay inside.

    Raises:
        ArchiveError: naming the first offending entry.
    """
    entries = packed.getmembers()
    _check_count(len(entries), source)
    _check_names((entry.name for entry in entries), source)
    for entry in entries:
        if not (entry.isreg() or entry.isdir()) or entry.issparse():
            raise _unsafe_entry(source, entry.name, "is a link, a device or a sparse file")


def check_unpacked_size(packed: zipfile.ZipFile, source: Path) -> None:
    """Reject zip bombs: the unpacked size must be small, or close to the packed size.

    Raises:
        ArchiveError: the zip file has too many files, or they are too large.
    """
    entries = packed.infolist()
    _check_count(len(entries), source)
    limit = max_unpacked_bytes(source)
    if sum(entry.file_size for entry in entries) > limit:
        raise _too_large(source, limit)


def max_unpacked_bytes(source: Path) -> int:
    """The size that an archive may unpack to."""
    return max(SMALL_BYTES, MAX_RATIO * source.stat().st_size)


def content_of(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read at most the entry's declared size; `ZipFile.read` checks it only after unpacking."""
    with packed.open(entry) as file:
        return file.read(entry.file_size)


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        check_zip(packed, path)
        for entry in packed.infolist():
            if not entry.is_dir():
                with packed.open(entry) as content:
                    _write(folder / entry.filename, content, entry.file_size)


def _unpack_package(path: Path, folder: Path) -> None:
    """Unpack the archive of a package, which is in a folder of packages for the Ray container."""
    with open_package(path) as packed:
        root = RAY_MODEL if f"{RAY_MODEL}{SUMS_FILE}" in packed.getnames() else ""
        for entry in packed.getmembers():
            # None for a folder.
            content = packed.extractfile(entry) if entry.name.startswith(root) else None
            if content is not None:
                _write(folder / entry.name.removeprefix(root), content, entry.size)


def _write(target: Path, content: IO[bytes], size: int) -> None:
    """Write at most the declared size, so that a forged one cannot exceed the checked total."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while size > 0 and (chunk := content.read(min(size, CHUNK_BYTES))):
            file.write(chunk)
            size -= len(chunk)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _gunzip(source: Path, target: IO[bytes]) -> None:
    limit = max_unpacked_bytes(source)
    with gzip.open(source) as packed:
        size = 0
        while chunk := packed.read(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise _too_large(source, limit)
            target.write(chunk)


def _check_names(names: Iterable[str], source: Path) -> None:
    for name, count in Counter(names).items():
        if not is_inside(name):
            raise _unsafe_entry(source, name, "is a path that leads out of it")
        if count > 1:
            raise _unsafe_entry(source, name, f"occurs {count} times")


def _check_count(count: int, source: Path) -> None:
    if count > MAX_FILES:
        raise ArchiveError(
            f"{source} has {count} files, accepted are at most {MAX_FILES}; {TRUSTED}"
        )


def _unsafe_entry(source: Path, name: str, problem: str) -> ArchiveError:
    return ArchiveError(f"{source} contains {name!r}, which {problem}; {TRUSTED}")


def _too_large(source: Path, limit: int) -> ArchiveError:
    return ArchiveError(f"{source} unpacks to more than {limit / 1e6:.0f} MB; {TRUSTED}")
