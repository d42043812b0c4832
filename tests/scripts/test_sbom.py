"""`make sbom` writes a valid bill of materials without paths of this machine."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.environment import clean_environment

INSTALLED = ("-o", ".venv/.installed", "-o", ".venv-container/.installed")
SERVING_PACKAGES = {
    *("torch", "torchvision", "numpy", "scipy", "pillow", "opencv-python-headless", "PyYAML"),
    *("torchserve", "psutil", "sympy"),
}
DEVELOPMENT_TOOLS = {"pytest", "ruff", "mypy", "moto"}


@pytest.fixture(scope="module")
def sbom(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    if not (repo_root / ".venv-container").is_dir():
        pytest.skip("no .venv-container; `make test` installs it")
    file = tmp_path_factory.mktemp("sbom") / "new folder" / "sbom.json"
    command = ["make", *INSTALLED, "sbom", f"FILE={file}"]
    subprocess.run(command, cwd=repo_root, env=clean_environment(), check=True)
    return file.read_text(encoding="utf-8")


def test_sbom_is_valid_cyclonedx(sbom: str) -> None:
    version = SchemaVersion.from_version(json.loads(sbom)["specVersion"])
    assert JsonStrictValidator(version).validate_str(sbom) is None


def test_sbom_lists_the_packages_of_serving(sbom: str, repo_root: Path) -> None:
    components = {each["name"]: each["version"] for each in json.loads(sbom)["components"]}
    assert components.keys() >= SERVING_PACKAGES
    assert not components.keys() & DEVELOPMENT_TOOLS
    constraints = (repo_root / "constraints-sagemaker.txt").read_text(encoding="utf-8")
    [torch] = re.findall(r"^torch==(.*)$", constraints, re.MULTILINE)
    assert components["torch"].partition("+")[0] == torch


def test_sbom_contains_no_path_of_this_machine(sbom: str, repo_root: Path) -> None:
    assert "file:" not in sbom
    assert str(repo_root) not in sbom
    assert str(Path.home()) not in sbom
