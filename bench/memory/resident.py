"""How much memory a process holds over time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import psutil

from bench.repeating import repeatedly


@dataclass(frozen=True)
class Sample:
    """Resident bytes of a process when `done` requests were done."""

    done: int
    resident: int


@contextmanager
def sampling(
    pid: int, done: Callable[[], int] = lambda: 0, every_s: float = 0.02
) -> Iterator[list[Sample]]:
    """Looks at a process at once, and every few moments while the block runs.

    Args:
        pid: which process; of one that has ended there are no samples.
        done: tells how many requests are done.
        every_s: seconds between two looks.
    """
    samples: list[Sample] = []

    def look() -> None:
        with suppress(psutil.NoSuchProcess):
            samples.append(Sample(done(), psutil.Process(pid).memory_info().rss))

    look()
    with repeatedly(look, every_s):
        yield samples


def peak(samples: Sequence[Sample]) -> int:
    """The most bytes seen; 0 if nothing was."""
    return max((sample.resident for sample in samples), default=0)


def slope(samples: Sequence[Sample]) -> float:
    """Bytes for each further request, by least squares; 0 where all have as many requests."""
    done = np.array([sample.done for sample in samples], dtype=float)
    if len(done) == 0 or done.min() == done.max():
        return 0.0
    resident = np.array([sample.resident for sample in samples], dtype=float)
    return float(np.polyfit(done, resident, 1)[0])


def settled(samples: Sequence[Sample], requests: int) -> list[Sample]:
    """What comes after the first tenth of the requests: by then every batch size has run."""
    return [sample for sample in samples if sample.done >= requests / 10]
