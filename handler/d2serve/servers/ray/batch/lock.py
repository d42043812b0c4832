"""A lock, so that one command at a time works on a job."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2serve.errors import CommandError

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: str, is_remote: bool = False) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; the end of the process releases it.

    Args:
        folder: an absolute path.
        is_remote: whether it is in S3, which has no locks; then nothing is locked.

    Raises:
        CommandError: another process holds it.
    """
    if is_remote:
        yield
        return
    path = Path(folder, LOCK_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise CommandError(
                f"--output {folder} is in use by {holder}; wait for it, or use another folder"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)
