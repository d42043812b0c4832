"""Pack a folder of a model's files into an archive; equal files give equal bytes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2serve.errors import CommandError
from d2serve.serving.integrity import NOT_SUMMED, SUMS_FILE, sha256_of, sums_text
from d2serve.serving.model_config import SERVING_FILE

STORE = Path("model-store")
# SageMaker's settings bind to this version alone.
MODEL_VERSION = "1.0"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_name(name: str) -> str:
    """The name of a model, which is also that of its files.

    Raises:
        CommandError: it could lead out of the store, or is none that TorchServe takes.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise CommandError(f"NAME {name!r}: use letters, digits, - and _, such as my-model")
    return name


def write_yaml(path: Path, content: Any) -> None:
    """Writes mappings, sequences, numbers and texts; tuples become lists."""
    path.write_text(yaml.safe_dump(_plain(content), sort_keys=False), encoding="utf-8")


def _plain(node: Any) -> Any:
    """YAML's own types alone, for a safe dump."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


MANIFEST = "MAR-INF/MANIFEST.json"
# The archiver's clock: it would make two archives of one model differ.
BUILD_DATE = "createdOn"
# The first that a zip file can tell.
NO_TIME = (1980, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16


def pack(content: Path, name: str, target: Path) -> None:
    """Writes the archive of all that lies in a folder, with the sums of its files.

    Raises:
        CommandError: torch-model-archiver failed.
    """
    with tempfile.TemporaryDirectory(prefix="d2serve-pack-") as temporary:
        folder = _with_manifest(content, name, Path(temporary))
        sums = {name: sha256_of(path) for name, path in _files_in(folder) if name not in NOT_SUMMED}
        (folder / SUMS_FILE).write_text(sums_text(sums), encoding="utf-8")
        _zip(folder, target)


def sums_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 sums of an archive's files, by name."""
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in files.items()
        if name not in NOT_SUMMED
    }


def without_build_date(manifest: bytes) -> dict[str, Any]:
    """The archiver's manifest, less the time of the build."""
    content: dict[str, Any] = json.loads(manifest)
    content.pop(BUILD_DATE, None)
    return content


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as a file."""
    return json.dumps(manifest, indent=2).encode()


def _with_manifest(content: Path, name: str, temporary: Path) -> Path:
    """A copy of the folder with what torch-model-archiver adds to it."""
    exported = temporary / "exported"
    exported.mkdir()
    handler = content / "handler.py"
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", name, "--version", MODEL_VERSION, "--handler", str(handler)),
        *("--extra-files", str(content), "--config-file", str(content / SERVING_FILE)),
        *("--export-path", str(exported), "--archive-format", "no-archive"),
    ]
    # The archiver works in a folder of fixed name under the temporary one.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"torch-model-archiver failed:\n{done.stderr.strip()}")
    manifest = exported / name / MANIFEST
    manifest.write_bytes(manifest_bytes(without_build_date(manifest.read_bytes())))
    return exported / name


def _zip(folder: Path, target: Path) -> None:
    """A zip file without anything of the moment or the machine: no time, sorted."""
    with zipfile.ZipFile(target, "w") as packed:
        for name, path in _files_in(folder):
            entry = zipfile.ZipInfo(name, NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = READABLE
            entry.file_size = path.stat().st_size  # tells whether it needs more than 32 bits
            with path.open("rb") as source, packed.open(entry, "w") as stored:
                shutil.copyfileobj(source, stored)


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    """The files by their names in the archive, sorted."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path) for path in files)
