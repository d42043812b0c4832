"""`make sbom`: what an archive holds and runs on, as a CycloneDX bill of materials."""

import argparse
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from d2serve.building.members import model_of, read_archive
from d2serve.building.packing import MANIFEST, STORE, check_name
from d2serve.cli.run import run
from d2serve.errors import CommandError
from d2serve.serving.integrity import SUMS_FILE, parse_sums
from scripts.installed_packages import licenses, needs, purl, runtime_packages

SPEC_VERSION = "1.5"
OUTPUT = Path("out", "sbom.cdx.json")

Component = dict[str, Any]


def bill_of_materials(archive: Path | None = None) -> dict[str, Any]:
    """The packages that are installed here for serving and, of an archive, its files.

    The same packages and files give the same bill: it tells no time, and its serial number comes
    from its content.

    Raises:
        CommandError: a package is missing, or is not as requirements.txt pins it; or the archive
            cannot be read.
    """
    packages = runtime_packages()
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
            {"ref": purl(each), "dependsOn": sorted(purl(packages[n]) for n in needs(each))}
            for each in packages.values()
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return bill | {"serialNumber": serial.urn}


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
    told = licenses(package)
    return {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": purl(package),
        "bom-ref": purl(package),
        **({"licenses": told} if told else {}),
    }


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
