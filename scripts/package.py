"""`make package`: model-store/NAME.mar -> NAME.tar.gz, which SageMaker's stock container serves."""

import argparse
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.errors import CommandError, run
from scripts.model_store import MODEL_VERSION, SERVING_FILE, STORE

MANIFEST = "MAR-INF/MANIFEST.json"
SUFFIX = ".tar.gz"
# The archiver's clock: it would make two packages of one model differ.
BUILD_DATE = "createdOn"
# TorchServe takes these from SAGEMAKER_TS_* only where the archive itself does not name them.
LEFT_TO_THE_ENVIRONMENT = (
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
)


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


def build_package(archive: Path) -> Package:
    """Repacks an archive for SageMaker, next to it; equal models give equal bytes.

    Raises:
        CommandError: there is no such archive, or it is not one that `make archive` wrote.
    """
    files = _read_archive(archive)
    files[MANIFEST] = _lasting_manifest(files[MANIFEST])
    files[SERVING_FILE] = _open_to_the_environment(files[SERVING_FILE])
    path = archive.with_name(archive.name.removesuffix(".mar") + SUFFIX)
    arriving = path.with_name(f".{path.name}.part")
    arriving.write_bytes(_pack(files))
    return read_package(arriving.replace(path))


def read_package(path: Path) -> Package:
    """Checks a package: what SageMaker's container would look for has to be in it.

    Raises:
        CommandError: there is no such file, it is damaged, or it holds no model of ours.
    """
    if not path.is_file():
        name = path.name.removesuffix(SUFFIX)
        raise CommandError(f"{path} does not exist; `make package NAME={name}` builds it")
    manifest = json.loads(_read_member(path, MANIFEST))
    version = manifest["model"]["modelVersion"]
    if version != MODEL_VERSION:
        raise CommandError(
            f"{path}: the model's version is {version}, and SageMaker's settings bind to "
            f"{MODEL_VERSION} alone; build it again with `make package`"
        )
    content = path.read_bytes()
    return Package(
        path, manifest["model"]["modelName"], hashlib.sha256(content).hexdigest(), len(content)
    )


def _read_archive(archive: Path) -> dict[str, bytes]:
    if not archive.is_file():
        raise CommandError(f"{archive} does not exist; `make archive` builds it")
    try:
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if not name.endswith("/")]
            files = {name: packed.read(name) for name in names}
    except zipfile.BadZipFile as error:
        raise CommandError(f"{archive} is damaged ({error}); build it again") from error
    for name in (MANIFEST, SERVING_FILE):
        if name not in files:
            raise CommandError(f"{archive} holds no {name}; `make archive` writes one")
    return files


def _read_member(path: Path, name: str) -> bytes:
    try:
        with tarfile.open(path) as packed:
            member = packed.extractfile(name)
            # Read to its end, so that a file cut short is noticed.
            packed.getmembers()
            return member.read() if member else b""
    except KeyError:
        raise CommandError(f"{path} holds no {name}; `make package` writes one") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CommandError(f"{path} is damaged ({error}); `make package` builds it") from error


def _lasting_manifest(content: bytes) -> bytes:
    manifest = {key: value for key, value in json.loads(content).items() if key != BUILD_DATE}
    return json.dumps(manifest, indent=2).encode()


def _open_to_the_environment(content: bytes) -> bytes:
    serving: Mapping[str, Any] = yaml.safe_load(content)
    left = {key: value for key, value in serving.items() if key not in LEFT_TO_THE_ENVIRONMENT}
    return yaml.safe_dump(left, sort_keys=False).encode()


def _pack(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz without anything of the moment or the machine: no time, no user, sorted."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return packed.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the package, or say what is wrong with the archive."""
    given = _parser().parse_args(arguments)
    package = build_package(given.model_store / f"{given.name}.mar")
    print(
        f"{package.path} ({package.size_bytes / 1e6:.1f} MB, sha256 {package.sha256[:12]}); "
        f"try it with: make sagemaker-local NAME={given.name}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="package", description=__doc__)
    parser.add_argument("--name", required=True, help="the model's name, as in make archive NAME=")
    parser.add_argument("--model-store", type=Path, default=STORE, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
