"""State that the proxy and the workers share through files of a private folder."""

import fcntl
import os
import re
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote, unquote

from d2serve.errors import ProxyError

SLOT = struct.Struct("<Q")
SLOTS = 1 << 12
MODEL_SUFFIX = ".model"


@dataclass(frozen=True)
class ModelState:
    """A model's versions as TorchServe spells them, and whether any worker can take requests."""

    versions: tuple[str, ...]
    is_ready: bool


class FileLock:
    """A lock on a file, which is created if absent.

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


class RuntimeFolder:
    """A folder that only this user can access; the last process that closes it removes it.

    Args:
        path: created if it does not exist.

    Attributes:
        path: the same.
        port: the lock of the proxy that listens; the file holds its process id.
        disconnects: the clients that have disconnected.

    Raises:
        ProxyError: it belongs to another user, is accessible to others, or is not a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder: int | None = _open_folder(path)
        self.port = FileLock(path / "port")
        self.disconnects = DisconnectTable(path / "disconnects")
        self._models: dict[Path, FileLock] = {}

    @classmethod
    def of(cls, public: str) -> "RuntimeFolder":
        """The folder for a public address, among the temporary files."""
        address = re.sub(r"[^0-9A-Za-z.-]", "_", public)
        return cls(Path(tempfile.gettempdir(), f"d2serve-{os.geteuid()}-{address}"))

    def ready_lock(self, name: str, version: str) -> FileLock:
        """The lock that each ready worker of a model holds."""
        return FileLock(self.path / f"{quote(name, safe='')},{version}{MODEL_SUFFIX}")

    def models(self) -> Mapping[str, ModelState]:
        """The models that have had a ready worker, by name."""
        models: dict[str, ModelState] = {}
        for file in sorted(self.path.glob(f"*{MODEL_SUFFIX}")):
            name, _, version = file.name.removesuffix(MODEL_SUFFIX).partition(",")
            lock = self._models.get(file) or self._models.setdefault(file, FileLock(file))
            known = models.get(unquote(name), ModelState((), False))
            is_ready = lock.is_held_elsewhere() or known.is_ready
            models[unquote(name)] = ModelState((*known.versions, version), is_ready)
        return models

    def close(self) -> None:
        """Stop using the folder; remove it if no other process uses it."""
        if self._folder is None:
            return
        with suppress(BlockingIOError):  # another process uses it
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._folder)
        self._folder = None


def _open_folder(path: Path) -> int:
    """Create a private folder if necessary, and lock it together with its other users."""
    while True:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # another process has just removed it
            continue
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(folder)
            raise ProxyError(
                f"the runtime folder {path} belongs to user {status.st_uid} with mode "
                f"{stat.S_IMODE(status.st_mode):o}, expected user {os.geteuid()} with mode 700; "
                "remove it"
            )
        fcntl.flock(folder, fcntl.LOCK_SH)
        if _is_same(path, status):
            return folder
        os.close(folder)


def _is_same(path: Path, status: os.stat_result) -> bool:
    """True if the path is still the folder that was opened, which may have been removed."""
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False


def _open_private(path: Path) -> int:
    """Open a file of this user's, but never through a symbolic link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _position(client_id: int) -> int:
    return SLOT.size * (client_id % SLOTS)
