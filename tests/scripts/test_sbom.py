"""The bill of materials beside CycloneDX's own rules, the requirements and what is installed."""

import json
import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from d2serve.building.members import read_archive
from d2serve.errors import CommandError
from d2serve.serving.integrity import parse_sums
from scripts import installed_packages
from scripts.installed_packages import ROOTS, pinned_versions
from scripts.sbom import bill_of_materials, main
from tests.test_imports import CONTAINER

# The fields of https://cyclonedx.org/schema/bom-1.5.schema.json that we write, with its rules.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["bomFormat", "specVersion", "version", "serialNumber", "components"],
    "additionalProperties": False,
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.5"},
        "version": {"type": "integer", "minimum": 1},
        "serialNumber": {
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
        },
        "metadata": {
            "additionalProperties": False,
            "properties": {"component": {"$ref": "#/$defs/component"}},
        },
        "components": {
            "type": "array",
            "uniqueItems": True,
            "items": {"$ref": "#/$defs/component"},
        },
        "dependencies": {
            "type": "array",
            "items": {
                "required": ["ref"],
                "additionalProperties": False,
                "properties": {
                    "ref": {"type": "string"},
                    "dependsOn": {"type": "array", "uniqueItems": True},
                },
            },
        },
    },
    "$defs": {
        "component": {
            "type": "object",
            "required": ["type", "name"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["application", "library", "file", "machine-learning-model"]},
                "name": {"type": "string", "minLength": 1},
                "version": {"type": "string"},
                "bom-ref": {"type": "string", "minLength": 1},
                "purl": {"pattern": "^pkg:pypi/[a-z0-9-]+@[0-9A-Za-z.%]+$"},
                "hashes": {
                    "items": {
                        "required": ["alg", "content"],
                        "properties": {
                            "alg": {"const": "SHA-256"},
                            "content": {"pattern": "^[0-9a-f]{64}$"},
                        },
                    }
                },
                "licenses": {
                    "minItems": 1,
                    "items": {
                        "oneOf": [
                            {"required": ["expression"]},
                            {
                                "required": ["license"],
                                "properties": {"license": {"required": ["name"]}},
                            },
                        ]
                    },
                },
            },
        }
    },
}


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return bill_of_materials()


def by_name(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in bill["components"]}


def test_it_is_cyclonedx(bill: dict[str, Any], shapes_mar: Path) -> None:
    for each in (bill, bill_of_materials(shapes_mar)):
        jsonschema.validate(each, SCHEMA)
        references = [component["bom-ref"] for component in each["components"]]
        assert len(references) == len(set(references))
        for dependency in each["dependencies"]:
            assert {dependency["ref"], *dependency["dependsOn"]} <= set(references)


def test_what_runs_with_an_archive_is_in_it_as_pinned(bill: dict[str, Any]) -> None:
    components, pins = by_name(bill), pinned_versions()
    for name in ROOTS:
        assert components[name]["version"].partition("+")[0] == pins[name]
        assert components[name]["purl"].startswith(f"pkg:pypi/{name}@{pins[name]}")


def test_the_handlers_imports_are_all_covered() -> None:
    packages = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}
    assert {packages.get(module, module) for module in CONTAINER} <= set(ROOTS)


def test_what_they_bring_along_is_in_it_and_tools_are_not(bill: dict[str, Any]) -> None:
    names = by_name(bill).keys()
    assert {"sympy", "filelock", "psutil"} <= names
    assert not {"pytest", "ruff", "boto3", "moto"} & names


def test_licenses_are_told_as_the_packages_tell_them(bill: dict[str, Any]) -> None:
    components = by_name(bill)
    told = {name: each.get("licenses") for name, each in components.items()}
    assert told["torchserve"] == [{"license": {"name": "Apache License Version 2.0"}}]
    for name, licenses in told.items():
        if expressions := distribution(name).metadata.get_all("License-Expression"):
            assert licenses == [{"expression": expressions[0]}]


def test_it_is_the_same_each_time(bill: dict[str, Any]) -> None:
    assert bill_of_materials() == bill


def test_an_archives_files_are_in_it(bill: dict[str, Any], shapes_mar: Path) -> None:
    with_files = bill_of_materials(shapes_mar)
    hashes = {
        component["name"]: component["hashes"][0]["content"]
        for component in with_files["components"]
        if component["type"] == "file"
    }
    assert hashes == parse_sums(read_archive(shapes_mar)["SHA256SUMS"])
    assert with_files["metadata"]["component"]["name"] == "shapes"
    assert with_files["serialNumber"] != bill["serialNumber"]


def test_another_version_than_pinned_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed_packages, "pinned_versions", lambda: {"numpy": "1.0"})
    with pytest.raises(CommandError, match=r"numpy .* is installed, .* pins 1\.0"):
        bill_of_materials()


def test_the_command_writes_it(
    shapes_mar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shapes_mar, tmp_path)
    output = tmp_path / "out" / "bill.json"
    arguments = ["--name", "shapes", "--model-store", str(tmp_path), "--output", str(output)]
    assert main(arguments) == 0
    written = json.loads(output.read_text())
    jsonschema.validate(written, SCHEMA)
    assert f"{output}: {len(written['components'])} components" in capsys.readouterr().out
