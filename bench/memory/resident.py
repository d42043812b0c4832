"""How much memory a process holds over time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil


@dataclass(frozen=True)
class Sample:
    """Resident bytes of a process when `done` requests were done."""

    done: int
    resident: int


@dataclass
class Sampler:
    """Looks at a process every few moments while its `with` block runs.

    Attributes:
        pid: which process.
        done: tells how many requests are done.
        every_s: seconds between two looks.
        samples: in their order.
    """

    pid: int
    done: Callable[[], int] = lambda: 0
    every_s: float = 0.02
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """The most bytes seen; 0 if nothing was."""
        return max((sample.resident for sample in self.samples), default=0)

    def _look_again(self) -> None:
        while not self._stop.is_set():
            try:
                resident = psutil.Process(self.pid).memory_info().rss
            except psutil.NoSuchProcess:
                return
            self.samples.append(Sample(self.done(), resident))
            time.sleep(self.every_s)


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
