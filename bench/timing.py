"""Timings that can be compared: of callables in turn, within one run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

# Fewer would leave nothing to take quartiles of.
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """How long one callable took, in seconds.

    Attributes:
        name: what was timed.
        seconds: of each round, in the order of the rounds.
        parts: by name the seconds that each of its parts took in each round; empty where it is
            timed as a whole.
    """

    name: str
    seconds: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of the rounds a quarter took no longer than the first, a quarter at least the second."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(low), float(high)


@dataclass(frozen=True)
class Ratio:
    """How many times as long as ours the peer took: of each round, so that what slows the machine
    down for a while slows both.

    Attributes:
        median: of the rounds' ratios.
        quartiles: of the rounds' ratios, the lower and the upper.
    """

    median: float
    quartiles: tuple[float, float]


def in_alternation(
    callables: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = perf_counter,
    *,
    within_s: float = math.inf,
    after_round: Callable[[int], object] = lambda _: None,
) -> list[Timing]:
    """Calls each once a round, in the order given; one more round before is not timed.

    Args:
        callables: by name.
        rounds: at least one.
        clock: seconds since some moment.
        within_s: once the timed calls took as many seconds, no further round begins; but the
            first LEAST_ROUNDS, or `rounds` where that is less, are always taken.
        after_round: is told how many rounds are done.

    Raises:
        ValueError: there is no round.
    """
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    for call in callables.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for done in range(rounds):
        if done >= LEAST_ROUNDS and sum(map(sum, seconds.values())) >= within_s:
            break
        for name, call in callables.items():
            start = clock()
            call()
            seconds[name].append(clock() - start)
        after_round(done + 1)
    return [Timing(name, tuple(values)) for name, values in seconds.items()]


def ratio(peer: Timing, ours: Timing) -> Ratio:
    """The peer's time by ours, round by round.

    Raises:
        ValueError: they have not as many rounds.
    """
    if len(peer.seconds) != len(ours.seconds):
        raise ValueError(
            f"{peer.name} has {len(peer.seconds)} rounds and {ours.name} {len(ours.seconds)}: "
            "time them together"
        )
    times = np.array(peer.seconds) / np.array(ours.seconds)
    low, median, high = (float(value) for value in np.quantile(times, (0.25, 0.5, 0.75)))
    return Ratio(median, (low, high))
