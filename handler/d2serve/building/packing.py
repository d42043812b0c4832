"""Pack a folder into a model archive (.mar); equal files give equal bytes."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from d2serve.errors import CommandError
from d2serve.serving.integrity import SUMS_FILE, UNSUMMED_FILES, format_sums, sha256_of
from d2serve.serving.model_config import MODEL_CONFIG_FILE

STORE = Path("model-store")
PACKAGE = Path(__file__).resolve().parent.parent
# The parts of d2serve that every server imports, beside the modules at its top.
SHARED_PACKAGES = ("detector", "inputs", "masks", "model", "outputs", "serving")
SUFFIX = ".mar"
HANDLER_FILE = "handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"
# SageMaker's settings bind to this version only.
MODEL_VERSION = "1.0"
# The manifest has the format of this torch-model-archiver.
ARCHIVER_VERSION = "0.12.0"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# The earliest time that a zip file can store.
NO_TIME = (1980, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16


def check_name(name: str) -> str:
    """Return the name of a model if it is also safe as a file name.

    Raises:
        CommandError: TorchServe rejects the name, or it could lead out of the store.

    Examples:
        >>> check_name("my-model")
        'my-model'
    """
    if not NAME_PATTERN.fullmatch(name):
        raise CommandError(
            f"the model's NAME is {name!r}; use letters, digits, - and _, such as my-model"
        )
    return name


def write_yaml(path: Path, content: Any) -> None:
    """Write mappings, sequences, numbers and strings; tuples become lists."""
    path.write_text(yaml.safe_dump(_with_lists(content), sort_keys=False), encoding="utf-8")


def pack(folder: Path, name: str, target: Path) -> None:
    """Write the archive of a folder, to which the manifest and the sums are added."""
    manifest = folder / MANIFEST
    manifest.parent.mkdir()
    manifest.write_bytes(manifest_bytes(manifest_of(name)))
    sums = {path: sha256_of(file) for path, file in _files_in(folder) if path not in UNSUMMED_FILES}
    (folder / SUMS_FILE).write_text(format_sums(sums), encoding="utf-8")
    _zip(folder, target)


def copy_code(
    packages: Sequence[str], folder: Path, left_out: Sequence[str] = ("__pycache__",)
) -> None:
    """Copy packages of d2serve, and the modules at its top and beside the servers, to a folder.

    Args:
        packages: paths inside d2serve, such as `servers/asgi`.
        folder: the folder that will contain `d2serve`.
        left_out: names of files and folders inside the packages.
    """
    target = folder / PACKAGE.name
    ignored = shutil.ignore_patterns(*left_out)
    for name in packages:
        shutil.copytree(PACKAGE / name, target / name, ignore=ignored)
    for module in (*PACKAGE.glob("*.py"), *PACKAGE.glob("servers/*.py")):
        shutil.copyfile(module, target / module.relative_to(PACKAGE))


def copy_library(name: str, folder: Path) -> None:
    """Copy an installed pure-Python package with its licence, for containers that lack it."""
    for file in distribution(name).files or ():
        is_module = file.parts[0] == name and "__pycache__" not in file.parts
        if is_module or "licenses" in file.parts:
            target = folder / name / (file.relative_to(name) if is_module else file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def manifest_of(name: str) -> dict[str, Any]:
    """The manifest from which TorchServe reads the model's name, version, handler and config."""
    return {
        "runtime": "python",
        "model": {
            "modelName": name,
            "handler": HANDLER_FILE,
            "modelVersion": MODEL_VERSION,
            "configFile": MODEL_CONFIG_FILE,
        },
        "archiverVersion": ARCHIVER_VERSION,
    }


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Encode a manifest as JSON."""
    return json.dumps(manifest, indent=2).encode()


def sums_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 sums of an archive's files, by path."""
    return {
        path: hashlib.sha256(content).hexdigest()
        for path, content in files.items()
        if path not in UNSUMMED_FILES
    }


def _with_lists(node: Any) -> Any:
    """The types that a safe YAML dumper knows."""
    if isinstance(node, dict):
        return {key: _with_lists(value) for key, value in node.items()}
    return [_with_lists(value) for value in node] if isinstance(node, (list, tuple)) else node


def _zip(folder: Path, target: Path) -> None:
    """Zip in sorted order and without times, so that the bytes depend on the content only."""
    with zipfile.ZipFile(target, "w") as archive:
        for path, file in _files_in(folder):
            entry = zipfile.ZipInfo(path, NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = READABLE
            entry.file_size = file.stat().st_size  # decides whether zip64 is needed
            with file.open("rb") as source, archive.open(entry, "w") as packed:
                shutil.copyfileobj(source, packed)


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    """The files with their paths in the archive, sorted."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path) for path in files)
