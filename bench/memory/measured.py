"""What came out: a worker's memory beside the bare model's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.memory.resident import Sample, settled, slope
from scripts.archive import SERVING_DEFAULTS

MEGA = 1e6


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        model: its name.
        clients: at once.
        requests: how many were sent; 0 where no worker was looked at.
        bare: resident bytes of the bare model, at their peak.
        samples: of the worker, from before the first request to the last.
    """

    model: str
    clients: int
    requests: int
    bare: int
    samples: Sequence[Sample]

    def rows(self) -> list[tuple[str, str]]:
        """What the table shows."""
        rows = [(f"bare {self.model}, peak at batch {batch_of(self.clients)}", _mega(self.bare))]
        calm = settled(self.samples, self.requests)
        if not calm:
            return rows
        most = max(sample.resident for sample in self.samples)
        growth = slope(calm) * 1000
        # A forward takes and gives back memory: single moments say little.
        tenth = -(-len(calm) // 10)
        return [
            *rows,
            ("worker, ready", _mega(self.samples[0].resident)),
            ("worker, after a tenth of the requests", _mega(_median(calm[:tenth]))),
            ("worker, at the end", _mega(_median(calm[-tenth:]))),
            ("worker, most", _mega(most)),
            ("worker's most / bare", f"{most / self.bare:.2f}"),
            ("growth in 1,000 requests, after a tenth", f"{growth / MEGA:+.2f}"),
        ]


def batch_of(clients: int) -> int:
    """How many pictures may run together at most."""
    return min(clients, int(SERVING_DEFAULTS["batchSize"]))


def _median(samples: Sequence[Sample]) -> float:
    return float(np.median([sample.resident for sample in samples]))


def _mega(size: float) -> str:
    return f"{size / MEGA:,.0f}"
