"""Archives, packages and checkpoints that unpack to far more than they are: none is unpacked."""

import gzip
import zipfile
from pathlib import Path

from scripts.errors import CommandError

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
