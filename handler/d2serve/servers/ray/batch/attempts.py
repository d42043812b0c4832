"""Records of parts that are being processed, which show what crashed the process."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from d2serve.servers.ray.batch.job import STARTED

# Afterwards the images of a part are processed one by one.
MAX_STARTS = 2


class Files(Protocol):
    """The methods of `Storage` that are used here."""

    def read(self, name: str) -> bytes:
        """Read a file; raises FileNotFoundError."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""


@dataclass(frozen=True)
class Attempt:
    """A part that is being processed.

    Attributes:
        run: identifies the run of the command; what an interrupted one began does not count.
        starts: number of times that a process began the part.
        place: place in the part of the image that is being processed alone, if any.
        crashed: places of the images that ended the process while they were processed alone.
    """

    run: str
    starts: int = 0
    place: int | None = None
    crashed: list[int] = field(default_factory=list)

    @property
    def is_alone(self) -> bool:
        """True if the images of the part are to be processed one by one."""
        return self.starts > MAX_STARTS


class Attempts:
    """The attempts of one run.

    Args:
        files: of the job.
        run: identifies the run.
    """

    def __init__(self, files: Files, run: str) -> None:
        self.files, self.run = files, run

    def start(self, part: str) -> Attempt:
        """Record the start of a part, by its name."""
        try:
            last = Attempt(**json.loads(self.files.read(_file(part))))
        except FileNotFoundError:
            last = Attempt("")
        if last.run != self.run:
            last = Attempt(self.run)
        crashed = [*last.crashed, *([] if last.place is None else [last.place])]
        attempt = Attempt(self.run, last.starts + 1, None, crashed)
        self._write(part, attempt)
        return attempt

    def process_alone(self, part: str, attempt: Attempt, place: int) -> None:
        """Record that an image is processed alone."""
        self._write(part, replace(attempt, place=place))

    def end(self, part: str) -> None:
        """Remove the record of a part that is finished."""
        self.files.remove(_file(part))

    def _write(self, part: str, attempt: Attempt) -> None:
        self.files.write(_file(part), json.dumps(asdict(attempt)).encode())


def _file(part: str) -> str:
    return f"{STARTED}/{part}.json"
