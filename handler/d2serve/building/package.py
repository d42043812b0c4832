"""Build a SageMaker package (NAME.tar.gz) from a model archive."""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from d2serve.building.members import model_of, read_archive
from d2serve.building.packing import (
    MANIFEST,
    MODEL_VERSION,
    manifest_bytes,
    sums_of,
)
from d2serve.building.packing import SUFFIX as ARCHIVE_SUFFIX
from d2serve.building.ray_package import MODEL_PREFIX, SERVE_CONFIG, ray_files
from d2serve.errors import ArchiveError, CommandError
from d2serve.serving.archive_files import open_package
from d2serve.serving.integrity import SUMS_FILE, format_sums
from d2serve.serving.model_config import MODEL_CONFIG_FILE
from d2serve.serving.safe_yaml import load_yaml

SUFFIX = ".tar.gz"
MULTI_MODEL_SUFFIX = ".mme.tar.gz"
# The manifest's key for the path of model-config.yaml.
CONFIG_FILE_KEY = "configFile"
# Higher levels take long, and weights hardly compress.
COMPRESSION_LEVEL = 1


class Container(str, Enum):
    """AWS's stock containers."""

    RAY = "ray"
    PYTORCH = "pytorch"


@dataclass(frozen=True)
class Package:
    """A package on disk.

    Attributes:
        path: the .tar.gz file.
        name: the model's name, as its archive was named.
        sha256: the file's hex digest.
        size_bytes: the file's size.
        container: the container that can use it.
    """

    path: Path
    name: str
    sha256: str
    size_bytes: int
    container: Container


def package_path(store: Path, name: str, *, multi_model: bool = False) -> Path:
    """Return the path of a model's package in the store."""
    return store / f"{name}{MULTI_MODEL_SUFFIX if multi_model else SUFFIX}"


def build_package(
    archive: Path, *, container: Container = Container.PYTORCH, multi_model: bool = False
) -> Package:
    """Repack an archive for SageMaker, beside it; equal archives give equal bytes.

    Args:
        archive: a file that `d2serve archive` wrote.
        container: the container that will serve it. A package for the Ray container has the code
            of the installed d2serve; one for the PyTorch container has that of the archive.
        multi_model: for a multi-model endpoint of the PyTorch container; keep the archive's own
            batch size, workers and timeouts. Multi-model endpoints have no variables for them;
            elsewhere SAGEMAKER_TS_* set them, and these apply only if the manifest names no
            model-config.yaml.

    Raises:
        ArchiveError: the archive is missing, damaged, or was not written by `d2serve archive`.
        CommandError: the container has no multi-model endpoints.
    """
    if multi_model and container is Container.RAY:
        raise CommandError(
            "container is 'ray', which has no multi-model endpoints; use --container pytorch, or "
            "omit --multi-model"
        )
    files = read_archive(archive)
    model_of(files[MANIFEST], archive)
    name = archive.name.removesuffix(ARCHIVE_SUFFIX)
    if not multi_model:
        files[MODEL_CONFIG_FILE] = _handler_section(files[MODEL_CONFIG_FILE], archive)
    if container is Container.RAY:
        files = ray_files(files, name)
    elif not multi_model:
        manifest = json.loads(files[MANIFEST])
        manifest["model"].pop(CONFIG_FILE_KEY, None)
        files[MANIFEST] = manifest_bytes(manifest)
        files[SUMS_FILE] = format_sums(sums_of(files)).encode()
    path = package_path(archive.parent, name, multi_model=multi_model)
    incomplete = path.with_name(f".{path.name}.part")
    with incomplete.open("wb") as file:
        _pack(files, file)
    return read_package(incomplete.replace(path))


def read_package(path: Path) -> Package:
    """Read a package's metadata and check that SageMaker's container can use it.

    Raises:
        ArchiveError: the package is missing, damaged, malicious, or was not written by
            `d2serve package`.
    """
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist; {_how_to_build(path)}")
    container, manifest = _read_manifest(path)
    model = model_of(manifest, path)
    if (version := model["modelVersion"]) != MODEL_VERSION:
        raise ArchiveError(
            f"{path}: the model's version is {version}, SageMaker's settings apply only to "
            f"{MODEL_VERSION}; {_how_to_build(path)}"
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Package(path, model["modelName"], digest, len(content), container)


def _how_to_build(path: Path) -> str:
    multi_model = path.name.endswith(MULTI_MODEL_SUFFIX)
    name = path.name.removesuffix(MULTI_MODEL_SUFFIX if multi_model else SUFFIX)
    return f"build it: d2serve package --name {name}{' --multi-model' if multi_model else ''}"


def _read_manifest(path: Path) -> tuple[Container, bytes]:
    """Return the kind of a package, which the Serve config distinguishes, and its manifest."""
    name = MANIFEST
    try:
        with open_package(path) as packed:
            is_for_ray = SERVE_CONFIG in packed.getnames()
            name = f"{MODEL_PREFIX}{MANIFEST}" if is_for_ray else MANIFEST
            member = packed.extractfile(name)
            content = member.read() if member else b""
            return Container.RAY if is_for_ray else Container.PYTORCH, content
    except KeyError:
        raise ArchiveError(f"{path} has no {name}; build it with `d2serve package`") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ArchiveError(f"{path} is damaged ({error}); `d2serve package` builds it") from error


def _handler_section(content: bytes, archive: Path) -> bytes:
    """The part of model-config.yaml that the handler reads; the rest is TorchServe's."""
    try:
        section: Mapping[str, Any] = load_yaml(content)["handler"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ArchiveError(
            f"{archive}: {MODEL_CONFIG_FILE} has no section handler; build the archive with "
            "`d2serve archive`"
        ) from error
    return yaml.safe_dump({"handler": section}, sort_keys=False).encode()


def _pack(files: Mapping[str, bytes], file: BinaryIO) -> None:
    """Write a sorted tar.gz without times and owners, so that the bytes depend on files only."""
    with (
        gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
