"""The resident memory of a server's processes over time, by kind."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load.cpu import WORKER, WORKER_SCRIPT
from bench.repeating import repeatedly
from scripts.processes import living_members

EVERY_S = 1.0
JAVA, FRONT_DOOR, LAUNCHER = "TorchServe", "front door", "launcher"
KINDS = (JAVA, WORKER, FRONT_DOOR, LAUNCHER)
RELAY = "handler.lifecycle.relay"


@dataclass(frozen=True)
class Sample:
    """Resident bytes by kind and process id, at a moment in seconds since 1970."""

    moment: float
    resident: Mapping[str, Mapping[int, int]]

    def of(self, kind: str) -> int:
        """All processes of a kind together."""
        return sum(self.resident.get(kind, {}).values())

    @property
    def total(self) -> int:
        """All processes together."""
        return sum(map(self.of, self.resident))


@contextmanager
def sampling(group: int) -> Iterator[list[Sample]]:
    """Looks at all processes of a process group while the block runs.

    The group and not the descendants of its leader: the front door outlives the worker that started
    it.
    """
    samples: list[Sample] = []
    with repeatedly(lambda: samples.append(_sample(living_members(group))), EVERY_S):
        yield samples


def _sample(processes: Iterable[psutil.Process]) -> Sample:
    found: dict[str, dict[int, int]] = {kind: {} for kind in KINDS}
    for process in processes:
        # One that has ended meanwhile holds nothing.
        with suppress(psutil.Error):
            kind = kind_of(process.cmdline())
            found[kind][process.pid] = process.memory_info().rss
    return Sample(time.time(), found)


def kind_of(command: Sequence[str]) -> str:
    """Which of KINDS a process is, by its command line."""
    if any(word.endswith(WORKER_SCRIPT) for word in command):
        return WORKER
    if any(RELAY in word for word in command):
        return FRONT_DOOR
    return JAVA if command and Path(command[0]).name == "java" else LAUNCHER
