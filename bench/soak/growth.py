"""How much the memory of a server and of its processes grows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.soak.memory import KINDS, Sample
from bench.soak.restarts import Restart

THE_SERVER = "the whole server"
# What a process does in its first minute, or in a third of its life if that is shorter, is warming
# up; of the rest the first tenth is compared with the last one.
WARM_UP_S = 60.0
PARTS = 10


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
