"""Locks on files, which the kernel lets go when their process ends, however that happens."""

import fcntl
import os
from pathlib import Path


class FileLock:
    """One process's hold on a file, which is made where absent and stays.

    Raises:
        OSError: the file cannot be opened, or is a link that somebody has laid there.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def share(self) -> None:
        """Takes it beside any number of others."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def take(self) -> bool:
        """Takes it alone; False where another process has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Lets go of it."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_held_by_others(self) -> bool:
        """Whether any other process has it, alone or shared."""
        if not self.take():
            return True
        self.release()
        return False

    def write(self, text: str) -> None:
        """Leaves a word in the file for the others."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode("ascii"), 0)

    def read(self) -> str:
        """The word that was left there last."""
        return os.pread(self._file, 64, 0).decode("ascii")

    def close(self) -> None:
        """Lets go of the lock and of the file."""
        os.close(self._file)
