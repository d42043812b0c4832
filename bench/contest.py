"""The same work, done by us and by our peers in turn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.timing import Timing, in_alternation

OURS = "d2serve"
DETECTRON2 = "detectron2"


@dataclass(frozen=True)
class Contestant:
    """One who does the work.

    Attributes:
        run: does it once.
        laps: grows by one with each run: by name the seconds of its parts; empty where it is timed
            as a whole.
    """

    run: Callable[[], object]
    laps: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Contest:
    """What is timed together.

    Attributes:
        stage: the part of a request's way that it is about.
        case: which work, in a few words.
        contestants: by name; the first is ours, beside which the others are shown.
        model: the network's name; empty where none runs.
        pictures: how many one run works on.
        note: what the reader has to know; empty where there is nothing.
    """

    stage: str
    case: str
    contestants: Mapping[str, Contestant]
    model: str = ""
    pictures: int = 1
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A contest's timings, in the order of its contestants; the other attributes are as there."""

    stage: str
    case: str
    model: str
    pictures: int
    note: str
    timings: tuple[Timing, ...]

    @property
    def title(self) -> str:
        """The case, with the model where one runs."""
        return f"{self.model} {self.case}" if self.model else self.case

    @property
    def ours(self) -> Timing:
        """What the others are shown beside."""
        return self.timings[0]

    @property
    def peers(self) -> tuple[Timing, ...]:
        """All others."""
        return self.timings[1:]


def hold(
    contest: Contest,
    rounds: int,
    within_s: float = math.inf,
    after_round: Callable[[int], object] = lambda _: None,
) -> Result:
    """Times the contestants in alternation; see `in_alternation`."""
    timings = in_alternation(
        {name: each.run for name, each in contest.contestants.items()},
        rounds,
        within_s=within_s,
        after_round=after_round,
    )
    timings = [
        replace(timing, parts=_parts(contest.contestants[timing.name].laps, len(timing.seconds)))
        for timing in timings
    ]
    return Result(
        stage=contest.stage,
        case=contest.case,
        model=contest.model,
        pictures=contest.pictures,
        note=contest.note,
        timings=tuple(timings),
    )


def _parts(laps: Sequence[Mapping[str, float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Of the last rounds: the runs before them do not count."""
    counted = laps[len(laps) - rounds :] if laps else []
    names = list(dict.fromkeys(name for lap in counted for name in lap))
    return {name: tuple(lap.get(name, 0.0) for lap in counted) for name in names}
