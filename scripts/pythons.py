"""Run the unit tests under each supported Python of this machine: `make test-pythons`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from d2serve.cli.run import run

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
REQUIREMENTS = (Path("pyproject.toml"), Path("constraints.txt"))
INSTALL = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")
PACKAGE = ("-c", "constraints.txt", "-e", ".[torchserve,asgi,grpc,aws,bench,dev]")
TESTS = ("-m", "pytest", "--ignore=tests/serving")


def main() -> int:
    """Test all versions, then print a line for each; return 1 if one failed."""
    results = {version: _test(version) for version in VERSIONS}
    for version, result in results.items():
        print(f"Python {version}: {result}")
    return int("failed" in results.values())


def find_python(version: str) -> str | None:
    """Return the path of a working Python of a version such as 3.12."""
    return next((path for path in _candidates(version) if _version_of(path) == version), None)


def _test(version: str) -> str:
    python = find_python(version)
    if python is None:
        return "absent"
    print(f"Python {version}: {python}", flush=True)
    # The current Python has all packages.
    ready = python if python == sys.executable else _install(python, Path(f".venv-{version}"))
    if ready and subprocess.run([ready, *TESTS]).returncode == 0:
        return "passed"
    return "failed"


def _install(python: str, environment: Path) -> str | None:
    """Return the Python of an environment with all packages; None if the installation failed."""
    interpreter = str(environment / "bin" / "python")
    installed = environment / ".installed"
    newest = max(file.stat().st_mtime for file in REQUIREMENTS)
    if installed.exists() and installed.stat().st_mtime >= newest:
        return interpreter
    steps = ([python, "-m", "venv", str(environment)], [interpreter, *INSTALL, *PACKAGE])
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
        printed = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return printed.stdout.strip() if printed.returncode == 0 else None


if __name__ == "__main__":
    run(main)
