"""The search for installed versions of Python."""

import sys
from pathlib import Path

from scripts.pythons import REQUIREMENTS, VERSIONS, find_python


def test_current_python_is_found() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert find_python(version)


def test_missing_python() -> None:
    assert find_python("3.0") is None


def test_versions_are_the_supported_ones(repo_root: Path) -> None:
    requirements = [repo_root / path for path in REQUIREMENTS]
    assert all(path.is_file() for path in requirements)
    oldest, newest = VERSIONS[0], int(VERSIONS[-1].partition(".")[2])
    assert f'requires-python = ">={oldest},<3.{newest + 1}"' in requirements[0].read_text()
