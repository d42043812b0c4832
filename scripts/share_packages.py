"""Link packages of this environment into another one, which needs the same versions:
`python -m scripts.share_packages .venv-container constraints-sagemaker.txt`.

Packages of 5 GB need not be unpacked again. The other environment has only what is linked: pinned
packages, and what those need. pip installs the rest there, and finds the links installed.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name


def main(target: Path, requirements: Path) -> None:
    """Link into the environment `target` what a file of requirements pins."""
    pinned = {canonicalize_name(each.name): each for each in _read(requirements)}
    for each in _shared(pinned):
        _link(each, target)


def _read(requirements: Path) -> Iterator[Requirement]:
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            yield Requirement(text)


def _shared(pinned: dict[NormalizedName, Requirement]) -> Iterator[Distribution]:
    """The pinned distributions that are installed here, and their dependencies."""
    waiting, seen = list[str](pinned), set[str]()
    while waiting:
        name = canonicalize_name(waiting.pop())
        wanted = pinned.get(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if name not in seen and (not wanted or wanted.specifier.contains(found.version)):
            seen.add(name)
            needs = map(Requirement, found.requires or ())
            waiting += [
                need.name
                for need in needs
                if not need.marker or need.marker.evaluate({"extra": ""})
            ]
            yield found


def _link(package: Distribution, target: Path) -> None:
    """Hard-link a distribution's files; write its commands for the other environment's Python."""
    source, destination = Path(sys.prefix), target.absolute()
    packages = Path(sysconfig.get_path("purelib"))
    for file in package.files or ():
        path = Path(os.path.normpath(packages / file))
        if not path.exists():
            continue
        other = destination / path.relative_to(source)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.unlink(missing_ok=True)
        with path.open("rb") as content:
            is_command = content.read(2) == b"#!" and not path.is_relative_to(packages)
        if is_command:
            other.write_text(path.read_text().replace(str(source), str(destination)))
            shutil.copymode(path, other)
        else:
            os.link(path, other)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
