"""`make test-pythons`: the unit tests under each supported Python on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from d2serve.cli.run import run

VERSIONS = ("3.10", "3.11", "3.12")
REQUIREMENTS = Path("requirements.txt")


def main() -> int:
    """Run all, then print a line for each version; 1 if any failed."""
    results = {version: _test_under(version) for version in VERSIONS}
    for version, result in results.items():
        print(f"Python {version}: {result}")
    return int("failed" in results.values())


def find_python(version: str) -> str | None:
    """Return the path of a Python that really runs and is of that version."""
    return next((path for path in _candidates(version) if _version_of(path) == version), None)


def _test_under(version: str) -> str:
    python = find_python(version)
    if python is None:
        return "absent"
    print(f"Python {version}: {python}", flush=True)
    # The Python that runs this has all that is needed installed already.
    ready = python if python == sys.executable else _install(python, Path(f".venv-{version}"))
    tests = ["-m", "pytest", "--ignore=tests/serving"]
    if ready and subprocess.run([ready, *tests]).returncode == 0:
        return "passed"
    return "failed"


def _install(python: str, environment: Path) -> str | None:
    """Return the Python of an environment with the requirements; None if they do not install."""
    interpreter = str(environment / "bin" / "python")
    installed = environment / ".installed"
    if installed.exists() and installed.stat().st_mtime >= REQUIREMENTS.stat().st_mtime:
        return interpreter
    pip = [interpreter, "-m", "pip", "--disable-pip-version-check"]
    steps = (
        [python, "-m", "venv", str(environment)],
        [*pip, "install", "--quiet", "-r", str(REQUIREMENTS)],
    )
    if any(subprocess.run(step).returncode for step in steps):
        return None
    installed.touch()
    return interpreter


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    for name in (f"python{version}", "python3", "python"):
        if path := shutil.which(name):
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))


def _version_of(python: str) -> str | None:
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


if __name__ == "__main__":
    run(main)
