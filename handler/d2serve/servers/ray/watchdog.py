"""Ends what a Ray of this machine leaves behind when the process that has started it is killed.

HAProxy and Ray's agents do not end with it. This file runs as a process of its own, which needs
only the standard library.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROCESSES = Path("/proc")
ROUNDS, PAUSE_S = 20, 0.1


@contextmanager
def watched(home: Path) -> Iterator[None]:
    """End the processes of a folder, and delete it, after the `with` block or with this process.

    Args:
        home: the folder; its processes are those that have a file of it open.
    """
    # Isolated: modules beside this file have names of the standard library's.
    command = [sys.executable, "-I", __file__, str(home)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        process.communicate()


def end_processes(home: Path) -> None:
    """Kill the processes of a folder, also those that they start meanwhile."""
    for _ in range(ROUNDS):
        members = list(processes_of(home))
        if not members:
            return
        for process_id in members:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(PAUSE_S)


def processes_of(home: Path) -> Iterator[int]:
    """The processes that have a file of a folder open, except the parent; none without /proc."""
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or another user owns it
            opened = (each.readlink() for each in (process / "fd").iterdir())
            is_member = any(path.is_relative_to(home) for path in opened)
            if is_member and int(process.name) != os.getppid():
                yield int(process.name)


def main() -> None:
    """Wait until stdin ends, which is when the process that has started this one has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    home = Path(sys.argv[1])
    sys.stdin.buffer.read()
    end_processes(home)
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
