"""The resident memory of a server's processes over time, by kind, and how much it grows."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from bench.load.cpu import WORKER, WORKER_SCRIPT
from bench.soak.restarts import Restart
from scripts.processes import living_members

EVERY_S = 1.0
THE_SERVER = "the whole server"
JAVA, FRONT_DOOR, LAUNCHER = "TorchServe", "front door", "launcher"
KINDS = (JAVA, WORKER, FRONT_DOOR, LAUNCHER)
RELAY = "handler.lifecycle.relay"
# What a process does in its first minute, or in a third of its life if that is shorter, is warming
# up; of the rest the first tenth is compared with the last one.
WARM_UP_S = 60.0
PARTS = 10


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


@dataclass(frozen=True)
class Growth:
    """From the first to the last tenth of a time, after its warm-up.

    Attributes:
        what: whose memory.
        first, last: medians, in bytes.
    """

    what: str
    first: float
    last: float

    @property
    def share(self) -> float:
        """0.05 is five percent more; less memory is below 0."""
        return self.last / self.first - 1.0


@contextmanager
def sampling(group: int) -> Iterator[list[Sample]]:
    """Looks at all processes of a process group while the block runs.

    The group and not the descendants of its leader: the front door outlives the worker that started
    it.
    """
    samples: list[Sample] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY_S):
            samples.append(_sample(living_members(group)))

    thread = threading.Thread(target=look, name="memory-sampling", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


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


def growths(samples: Sequence[Sample], restarts: Sequence[Restart]) -> list[Growth]:
    """Of the whole server over the whole time, and of each kind of process.

    What is sampled within a restart does not count, for a process is missing or loading then. A
    kind's growth is that of the one of its processes that grew most in its own life, of those that
    lived long enough to tell.
    """
    calm = [
        each
        for each in samples
        if not any(restart.touches(each.moment, each.moment) for restart in restarts)
    ]
    server = _growth(THE_SERVER, [(each.moment, each.total) for each in calm])
    return [growth for growth in (server, *(_of_kind(kind, calm) for kind in KINDS)) if growth]


def _of_kind(kind: str, samples: Sequence[Sample]) -> Growth | None:
    grown = [_growth(kind, life) for life in lives(samples, kind)]
    told = [growth for growth in grown if growth]
    return max(told, key=lambda growth: growth.share, default=None)


def lives(samples: Sequence[Sample], kind: str) -> list[list[tuple[float, int]]]:
    """The moments and bytes of each process of a kind."""
    found: dict[int, list[tuple[float, int]]] = {}
    for sample in samples:
        for process, resident in sample.resident.get(kind, {}).items():
            found.setdefault(process, []).append((sample.moment, resident))
    return list(found.values())


def _growth(what: str, points: Sequence[tuple[float, int]]) -> Growth | None:
    """None where there are too few points for two tenths."""
    if len(points) < 2 * PARTS:
        return None
    begin, end = points[0][0], points[-1][0]
    warm = begin + min(WARM_UP_S, (end - begin) / 3)
    tenth = (end - warm) / PARTS
    first = [size for moment, size in points if warm <= moment <= warm + tenth]
    last = [size for moment, size in points if moment >= end - tenth]
    return Growth(what, float(np.median(first)), float(np.median(last))) if first else None
