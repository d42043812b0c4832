"""Which clients have hung up: the front door tells the workers, through a file.

TorchServe hands on requests that nobody waits for any more, and does not tell. The file has cells
of one number each, the client's who last went of all whose numbers share the cell. So it never
grows, and at worst somebody who has gone seems to be there.
"""

import os
import struct
import time
from itertools import count
from pathlib import Path

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
