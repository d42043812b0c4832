"""Read the members of archives and packages that may be malicious or damaged."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from d2serve.building.packing import MANIFEST, sums_of
from d2serve.errors import ArchiveError
from d2serve.serving.archive_files import check_unpacked_size, check_zip, content_of
from d2serve.serving.integrity import SUMS_FILE, missing_sums, parse_sums, verify_sums
from d2serve.serving.model_config import MODEL_CONFIG_FILE

# Errors of zipfile for damaged files; names that are not text are ValueErrors.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError),
    *(zlib.error, EOFError),
)


def read_archive(archive: Path) -> dict[str, bytes]:
    """Read the files of an archive, by path.

    Raises:
        ArchiveError: the archive is missing, damaged or malicious, was not written by
            `d2serve archive`, or its files do not match its sums.
    """
    if not archive.is_file():
        raise ArchiveError(f"{archive} does not exist; `d2serve archive` builds it")
    try:
        with zipfile.ZipFile(archive) as packed:
            check_zip(packed, archive)
            files = {
                entry.filename: content_of(packed, entry)
                for entry in packed.infolist()
                if not entry.is_dir()
            }
    except ArchiveError:
        raise
    except ZIP_ERRORS as error:
        raise ArchiveError(f"{archive} is damaged ({error}); build it again") from error
    for name in (MANIFEST, MODEL_CONFIG_FILE):
        if name not in files:
            raise ArchiveError(f"{archive} has no {name}; build it with `d2serve archive`")
    try:
        _verify(files)
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}") from error
    return files


def model_of(manifest: bytes, source: Path) -> dict[str, Any]:
    """Parse the section `model` of a manifest: name, version and handler.

    Raises:
        ArchiveError: the manifest has another format.
    """
    try:
        model = json.loads(manifest)["model"]
        if not {"modelName", "modelVersion"} <= model.keys():
            raise KeyError("modelName and modelVersion")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(
            f"{source}: {MANIFEST} has no model with modelName and modelVersion ({error!r}); "
            "build it with `d2serve archive`"
        ) from error
    section: dict[str, Any] = model
    return section


def check_checkpoint_size(checkpoint: Path) -> None:
    """Reject a checkpoint that is a zip bomb; files that are no zip file pass.

    Raises:
        ArchiveError: the checkpoint has too many files, or they are too large.
    """
    try:
        with zipfile.ZipFile(checkpoint) as packed:
            check_unpacked_size(packed, checkpoint)
    except ArchiveError:
        raise
    except (OSError, *ZIP_ERRORS):  # `open_checkpoint` reports the problem
        return


def _verify(files: dict[str, bytes]) -> None:
    if SUMS_FILE not in files:
        raise missing_sums()
    digests = sums_of(files)
    verify_sums(parse_sums(files[SUMS_FILE]), files, digests.__getitem__)
