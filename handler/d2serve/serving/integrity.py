"""Check an unpacked archive against its SHA-256 sums."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from d2serve.serving.model_config import SERVING_FILE

logger = logging.getLogger(__name__)
SUMS_FILE = "SHA256SUMS"
# Operators tune the settings where an archive lies unpacked.
NOT_SUMMED = (SUMS_FILE, SERVING_FILE)
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
CHUNK_BYTES = 1 << 20
NAMES_SHOWN = 10


class IntegrityError(RuntimeError):
    """Files that are not those that were packed."""


def check_folder(folder: Path) -> None:
    """Passes an unpacked archive whose files are all those of its SHA256SUMS, and no others.

    Python's own bytecode of listed modules may lie beside them. An archive without sums, as older
    versions wrote them, passes with a warning.

    Raises:
        IntegrityError: naming the files that are changed, missing or additional.
    """
    sums_file = folder / SUMS_FILE
    if not sums_file.exists():
        logger.warning("the archive has no %s, so nobody checked its files", SUMS_FILE)
        return
    sums = parse_sums(sums_file.read_bytes())
    found = (name for name in _files_in(folder) if not _is_bytecode_of(sums, name))
    check_sums(sums, found, lambda name: sha256_of(folder / name))


def check_sums(
    sums: Mapping[str, str], found: Iterable[str], sha256_of: Callable[[str], str]
) -> None:
    """Passes files that are all those of the sums, and no others.

    Args:
        sums: hex digests by the files' paths.
        found: the paths of the files that are there; those of NOT_SUMMED may be among them.
        sha256_of: the hex digest of a file that is there.

    Raises:
        IntegrityError: naming the files that are changed, missing or additional.
    """
    names = set(found) - set(NOT_SUMMED)
    problems = [
        *(f"missing {name!r}" for name in sorted(sums.keys() - names)),
        *(f"additional {name!r}" for name in sorted(names - sums.keys())),
        *(
            f"changed {name!r}"
            for name in sorted(sums.keys() & names)
            if sha256_of(name) != sums[name]
        ),
    ]
    if problems:
        more = [f"and {len(problems) - NAMES_SHOWN} more"] if len(problems) > NAMES_SHOWN else []
        raise IntegrityError(
            f"the archive's files are not those of its {SUMS_FILE}: "
            f"{', '.join(problems[:NAMES_SHOWN] + more)}; take the archive as it was built"
        )


def parse_sums(content: bytes) -> dict[str, str]:
    """Hex digests by path, of a file that `sums_text` or `sha256sum` wrote.

    Raises:
        IntegrityError: a line is none of `sha256sum`'s, or its path leaves the archive.
    """
    sums = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        match = LINE.fullmatch(line)
        if match is None or not is_inside(match[2]):
            raise IntegrityError(f"line {number} of {SUMS_FILE} is no SHA-256 sum of a file inside")
        sums[match[2].removeprefix("./")] = match[1]
    return sums


def sums_text(sums: Mapping[str, str]) -> str:
    """What `sha256sum --check` reads, sorted by path."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def is_inside(name: str) -> bool:
    """Whether a path in an archive stays in the folder that the archive is unpacked to."""
    path = PurePosixPath(name)
    plain = "\\" not in name and "\0" not in name and "\n" not in name
    return plain and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def sha256_of(file: Path) -> str:
    """A file's hex digest.

    Raises:
        IntegrityError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise IntegrityError(f"{file.name} cannot be read: {error}") from error
    return digest.hexdigest()


def _files_in(folder: Path) -> Iterator[str]:
    """Paths of all that is no plain folder: links to folders too, which are not walked."""
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
