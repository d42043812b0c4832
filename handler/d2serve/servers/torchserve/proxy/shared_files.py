"""State shared between the proxy and the workers through locked files."""

import fcntl
import os
import struct
import time
from itertools import count
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


CELL = struct.Struct("<Q")
CELLS = 1 << 12


class Departures:
    """A file that a front door writes and the workers behind it read.

    Raises:
        OSError: the file cannot be opened, or is a link that somebody has laid there.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        # Those of a front door before this one were all smaller.
        self._numbers = count(time.monotonic_ns())

    def next_number(self) -> int:
        """For a client that comes now."""
        return next(self._numbers)

    def add(self, number: int) -> None:
        """The client has gone."""
        os.pwrite(self._file, CELL.pack(number), _position(number))

    def holds(self, text: str) -> bool:
        """Whether the client of this number, as its request's header has it, has gone."""
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            return False
        number = int(text)
        return os.pread(self._file, CELL.size, _position(number)) == CELL.pack(number)


def _position(number: int) -> int:
    return CELL.size * (number % CELLS)
