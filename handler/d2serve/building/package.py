"""Build a SageMaker package (NAME.tar.gz) from a model archive."""

import argparse
import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from d2serve.building.members import check_tar, gunzipped, model_of, read_archive
from d2serve.building.packing import (
    MANIFEST,
    MODEL_VERSION,
    STORE,
    check_name,
    manifest_bytes,
    sums_of,
    without_build_date,
)
from d2serve.cli.run import run
from d2serve.errors import CommandError
from d2serve.serving.integrity import SUMS_FILE, sums_text
from d2serve.serving.model_config import SERVING_FILE
from d2serve.serving.safe_yaml import load_yaml

SUFFIX = ".tar.gz"
MULTI_MODEL_SUFFIX = ".mme.tar.gz"
# Where the manifest names the model-config.yaml.
CONFIG_FILE = "configFile"
# Weights hardly shrink, however long gzip tries.
FASTEST = 1


@dataclass(frozen=True)
class Package:
    """A package on disk.

    Attributes:
        path: the .tar.gz file.
        name: the model's name, as its archive was named.
        sha256: the file's hex digest.
        size_bytes: the file's size.
    """

    path: Path
    name: str
    sha256: str
    size_bytes: int


def package_path(store: Path, name: str, *, multi_model: bool = False) -> Path:
    """Where a model's package lies in the store."""
    return store / f"{name}{MULTI_MODEL_SUFFIX if multi_model else SUFFIX}"


def build_package(archive: Path, *, multi_model: bool = False) -> Package:
    """Repacks an archive for SageMaker, next to it; equal models give equal bytes.

    Args:
        archive: what `make archive` wrote.
        multi_model: TorchServe reads the archive's own batch size, workers and time limits. A
            multi-model endpoint has no variables for them; elsewhere SAGEMAKER_TS_* set them, and
            bind only where TorchServe is told of no model-config.yaml.

    Raises:
        CommandError: there is no such archive, or it is not one that `make archive` wrote.
    """
    files = read_archive(archive)
    model_of(files[MANIFEST], archive)
    manifest = without_build_date(files[MANIFEST])
    if not multi_model:
        manifest["model"].pop(CONFIG_FILE, None)
        files[SERVING_FILE] = _handler_section(files[SERVING_FILE], archive)
    files[MANIFEST] = manifest_bytes(manifest)
    files[SUMS_FILE] = sums_text(sums_of(files)).encode()
    path = package_path(archive.parent, archive.name.removesuffix(".mar"), multi_model=multi_model)
    arriving = path.with_name(f".{path.name}.part")
    with arriving.open("wb") as file:
        _pack(files, file)
    return read_package(arriving.replace(path))


def read_package(path: Path) -> Package:
    """Checks a package: what SageMaker's container would look for has to be in it.

    Raises:
        CommandError: there is no such file, it is damaged, or it holds no model of ours.
    """
    if not path.is_file():
        raise CommandError(f"{path} does not exist; {_how_to_build(path)}")
    model = model_of(_read_member(path, MANIFEST), path)
    if (version := model["modelVersion"]) != MODEL_VERSION:
        raise CommandError(
            f"{path}: the model's version is {version}, and SageMaker's settings bind to "
            f"{MODEL_VERSION} alone; build it again with `make package`"
        )
    content = path.read_bytes()
    return Package(path, model["modelName"], hashlib.sha256(content).hexdigest(), len(content))


def _how_to_build(path: Path) -> str:
    many = path.name.endswith(MULTI_MODEL_SUFFIX)
    name = path.name.removesuffix(MULTI_MODEL_SUFFIX if many else SUFFIX)
    return f"build it: make package NAME={name}{' MULTI_MODEL=1' if many else ''}"


def _read_member(path: Path, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(gunzipped(path))) as packed:
            check_tar(packed, path)
            member = packed.extractfile(name)
            return member.read() if member else b""
    except KeyError:
        raise CommandError(f"{path} holds no {name}; `make package` writes one") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise CommandError(f"{path} is damaged ({error}); `make package` builds it") from error


def _handler_section(content: bytes, archive: Path) -> bytes:
    """What the handler reads; the rest is TorchServe's, which does not read this file."""
    try:
        section: Mapping[str, Any] = load_yaml(content)["handler"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise CommandError(
            f"{archive}: {SERVING_FILE} has no section handler; `make archive` writes one"
        ) from error
    return yaml.safe_dump({"handler": section}, sort_keys=False).encode()


def _pack(files: Mapping[str, bytes], file: BinaryIO) -> None:
    """A tar.gz without anything of the moment or the machine: no time, no name, no user, sorted."""
    with (
        gzip.GzipFile("", "wb", FASTEST, file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the package, or say what is wrong with the archive."""
    given = _parser().parse_args(arguments)
    archive = given.model_store / f"{check_name(given.name)}.mar"
    package = build_package(archive, multi_model=given.multi_model)
    more = " MULTI_MODEL=1" if given.multi_model else ""
    print(
        f"{package.path} ({package.size_bytes / 1e6:.1f} MB, sha256 {package.sha256[:12]}); "
        f"try it with: make sagemaker-local NAME={given.name}{more}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="package", description=__doc__)
    parser.add_argument("--name", required=True, help="the model's name, as in make archive NAME=")
    parser.add_argument("--multi-model", action="store_true", help="for multi-model endpoints")
    parser.add_argument("--model-store", type=Path, default=STORE, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
