"""State that the proxy and the workers share through locked files."""

import fcntl
import os
import struct
import time
from itertools import count
from pathlib import Path

SLOT = struct.Struct("<Q")
SLOTS = 1 << 12


class FileLock:
    """A lock on a file, which is created if absent and never deleted.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open_private(path)

    def acquire_shared(self) -> None:
        """Acquire the lock together with any number of other processes."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def try_acquire(self) -> bool:
        """Acquire the lock exclusively; False if another process holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_held_elsewhere(self) -> bool:
        """True if another process holds the lock, shared or exclusively."""
        if not self.try_acquire():
            return True
        self.release()
        return False

    def write(self, text: str) -> None:
        """Replace the file's content."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode("ascii"), 0)

    def read(self) -> str:
        """Return the file's content, up to 64 bytes."""
        return os.pread(self._file, 64, 0).decode("ascii")

    def close(self) -> None:
        """Release the lock and close the file."""
        os.close(self._file)


class DisconnectTable:
    """A file of fixed size that holds the ids of clients that have disconnected.

    The proxy writes it and the workers read it. An id overwrites the one that is SLOTS smaller.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open_private(path)
        # Larger than all ids of an earlier proxy.
        self._ids = count(time.monotonic_ns())

    def next_id(self) -> int:
        """Return the id for a new client."""
        return next(self._ids)

    def mark(self, client_id: int) -> None:
        """Record that the client has disconnected."""
        os.pwrite(self._file, SLOT.pack(client_id), _position(client_id))

    def is_disconnected(self, text: str) -> bool:
        """True if the client whose id is in a request header has disconnected."""
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            return False
        client_id = int(text)
        return os.pread(self._file, SLOT.size, _position(client_id)) == SLOT.pack(client_id)


def _open_private(path: Path) -> int:
    """Open a file of this user's, but never through a symbolic link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _position(client_id: int) -> int:
    return SLOT.size * (client_id % SLOTS)
