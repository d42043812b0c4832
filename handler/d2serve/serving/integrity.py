"""Verify the files of an archive against its SHA-256 sums."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from d2serve.errors import ArchiveError
from d2serve.serving.model_config import MODEL_CONFIG_FILE

SUMS_FILE = "SHA256SUMS"
# Operators tune the settings of an unpacked archive.
UNSUMMED_FILES = (SUMS_FILE, MODEL_CONFIG_FILE)
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
CHUNK_BYTES = 1 << 20
MAX_NAMES = 10
REBUILD = "build the archive again with `d2serve archive`"


def verify_folder(folder: Path) -> None:
    """Verify that an unpacked archive contains exactly the files of its SHA256SUMS.

    Python's bytecode of listed modules is accepted too.

    Raises:
        ArchiveError: files are changed, missing or unexpected, or the archive has no SHA256SUMS.
    """
    sums_file = folder / SUMS_FILE
    if not sums_file.is_file():
        raise missing_sums()
    sums = parse_sums(sums_file.read_bytes())
    names = (name for name in _files_in(folder) if not _is_bytecode_of(sums, name))
    verify_sums(sums, names, lambda name: sha256_of(folder / name))


def verify_sums(
    sums: Mapping[str, str], names: Iterable[str], sha256_of: Callable[[str], str]
) -> None:
    """Verify that files are exactly those of the sums.

    Args:
        sums: hex digests by path.
        names: paths of the existing files; UNSUMMED_FILES may be among them.
        sha256_of: returns the hex digest of an existing file.

    Raises:
        ArchiveError: files are changed, missing or unexpected.
    """
    existing = set(names) - set(UNSUMMED_FILES)
    problems = [
        *(f"missing {name!r}" for name in sorted(sums.keys() - existing)),
        *(f"unexpected {name!r}" for name in sorted(existing - sums.keys())),
        *(
            f"changed {name!r}"
            for name in sorted(sums.keys() & existing)
            if sha256_of(name) != sums[name]
        ),
    ]
    if problems:
        more = [f"and {len(problems) - MAX_NAMES} more"] if len(problems) > MAX_NAMES else []
        raise ArchiveError(
            f"the files do not match {SUMS_FILE}: {', '.join(problems[:MAX_NAMES] + more)}; "
            "restore the archive as it was built"
        )


def missing_sums() -> ArchiveError:
    """Return the error for an archive without sums."""
    return ArchiveError(
        f"the archive has no {SUMS_FILE}, so its files cannot be verified; {REBUILD}"
    )


def parse_sums(content: bytes) -> dict[str, str]:
    """Parse the output of `sha256sum` to hex digests by path.

    Raises:
        ArchiveError: a line has another format, or its path leads out of the archive.
    """
    sums = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        match = LINE.fullmatch(line)
        if match is None or not is_inside(match[2]):
            raise ArchiveError(
                f"line {number} of {SUMS_FILE} is {line!r:.100}, expected a SHA-256 sum, two "
                f"spaces and a path inside the archive; {REBUILD}"
            )
        sums[match[2].removeprefix("./")] = match[1]
    return sums


def format_sums(sums: Mapping[str, str]) -> str:
    """Format sums for `sha256sum --check`, sorted by path."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def is_inside(name: str) -> bool:
    """Return whether a path in an archive stays inside the folder that the archive is unpacked to.

    Examples:
        >>> is_inside("model/weights.pt"), is_inside("../weights.pt"), is_inside("/etc/passwd")
        (True, False, False)
    """
    path = PurePosixPath(name)
    plain = "\\" not in name and "\0" not in name and "\n" not in name
    return plain and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def sha256_of(file: Path) -> str:
    """Return a file's hex digest.

    Raises:
        ArchiveError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ArchiveError(f"{file.name} cannot be read: {error}") from error
    return digest.hexdigest()


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of everything but plain folders; links to folders are listed and not followed."""
    for root, folders, files in os.walk(folder):
        links = (name for name in folders if Path(root, name).is_symlink())
        for name in (*files, *links):
            yield Path(root, name).relative_to(folder).as_posix()


def _is_bytecode_of(sums: Mapping[str, str], name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix != ".pyc" or path.parent.name != "__pycache__":
        return False
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return source.as_posix() in sums
