"""End SageMaker's container when no replica of the model is left.

Ray's health check, which the container returns as `/ping`, succeeds from the first deployment on,
also without any replica. Each replica holds a shared lock on a file while its process lives, and a
small process of its own watches the file: it needs neither Ray nor the network, and the kernel
releases the lock of a process that ends in any way.

The container's first process is a shell that waits for AWS's adapter. A process cannot end the
first process of its container, whose signals the kernel discards; but the shell, and with it the
container, ends when the adapter does. The watchdog therefore ends the process that listens on
SageMaker's port.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)
# The container's port, which only the local imitation changes.
PORT_VARIABLE = "D2SERVE_CONTAINER_PORT"
DEFAULT_PORT = 8080
# Clients of an endpoint wait for 60 s, and Ray replaces a replica within seconds.
SECONDS_VARIABLE = "D2SERVE_WATCHDOG_SECONDS"
DEFAULT_SECONDS = 60.0
# The first replica loads a model that has been loaded and tried already.
FIRST_WITHIN_S = 300.0
POLL_S = 0.5
# Requests of the adapter wait for replicas, so that it would not end before they time out.
GRACE_S = 5.0
LISTENING = "0A"


def lock_file() -> Path:
    """Path of the file that replicas lock, in the container's temporary folder."""
    return Path(tempfile.gettempdir(), "d2serve-replicas.lock")


def hold_lock(path: Path) -> IO[bytes]:
    """Lock the file as a replica does; the lock ends with the returned file or the process."""
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def is_held(path: Path) -> bool:
    """Return whether a replica holds the lock."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def start_watchdog() -> None:
    """Start the watchdog, unless it is running already, as a process that survives this one.

    Ray ends the children of its workers, and the group of their processes.
    """
    command = [sys.executable, "-m", __name__]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def watch(path: Path, port: int, after_s: float, first_within_s: float = FIRST_WITHIN_S) -> None:
    """Return when no replica has held the lock for `after_s` seconds, and `port` is closed.

    Args:
        path: the file that replicas lock.
        port: TCP port of the process to end.
        after_s: time in seconds without a replica.
        first_within_s: the same for the first replica.
    """
    last, limit_s = time.monotonic(), first_within_s
    while True:
        # Before the time, because this process may have been paused, too.
        if is_held(path):
            last, limit_s = time.monotonic(), after_s
        elif (without_s := time.monotonic() - last) >= limit_s:
            break
        time.sleep(POLL_S)
    logger.critical("no replica for %.0f s: the container ends", without_s)
    end_listeners(port)


def end_listeners(port: int) -> None:
    """Terminate the processes that listen on a TCP port, and kill them after GRACE_S seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in listeners(port):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + GRACE_S
        while listeners(port) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def listeners(port: int) -> set[int]:
    """The processes of this user that listen on a TCP port, of IPv4 or IPv6 (Linux)."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    return {process for process, target in _descriptors() if target in sockets}


def _inodes(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _descriptors() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*/fd"):
        # Processes end meanwhile, or belong to another user.
        with suppress(OSError):
            for link in folder.iterdir():
                with suppress(OSError):
                    yield int(folder.parent.name), str(link.readlink())


def main() -> None:
    """Detach from the caller, and watch; end at once if another process does."""
    if os.fork():
        return
    os.setpgid(0, 0)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    path = lock_file()
    with path.with_suffix(".watchdog").open("ab") as single:
        try:
            fcntl.flock(single, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        port = int(os.environ.get(PORT_VARIABLE, DEFAULT_PORT))
        watch(path, port, float(os.environ.get(SECONDS_VARIABLE, DEFAULT_SECONDS)))


if __name__ == "__main__":
    main()
