"""A soak in short windows, for its plots and its figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from bench.load.answers import NO_ANSWER
from bench.soak.latency import percentile_ms
from bench.soak.outcomes import LEFT, REFUSED, RIGHT, Judged

WINDOW_S = 10.0
# A short run has some points too.
LEAST_WINDOWS = 30
GOOD, HOSTILE, LEAVING, OTHER = "good, right", "hostile, refused", "left by clients", "other"


@dataclass(frozen=True)
class Window:
    """Some seconds of a soak; requests count where they were sent.

    Attributes:
        begin, seconds: from the begin of the measured time.
        rates: requests/s by GOOD, HOSTILE, LEAVING and OTHER.
        errors: requests that got another status than 200, by status; those left are not among them.
        p50_ms, p99_ms: of the right answers to good requests, those that a restart held up too;
            None without any.
    """

    begin: float
    seconds: float
    rates: Mapping[str, float]
    errors: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None

    @property
    def middle_min(self) -> float:
        """Its place on an axis of minutes."""
        return (self.begin + self.seconds / 2) / 60


def windows(judged: Sequence[Judged], seconds: float) -> list[Window]:
    """The whole measured time."""
    length = min(WINDOW_S, seconds / LEAST_WINDOWS)
    parts: dict[int, list[Judged]] = {}
    for each in judged:
        parts.setdefault(int(each.answer.due // length), []).append(each)
    count = int(seconds / length + 1e-6)
    return [_window(parts.get(index, []), index * length, length) for index in range(count)]


def _window(judged: Sequence[Judged], begin: float, seconds: float) -> Window:
    outcomes = Counter(each.outcome for each in judged)
    counts = {GOOD: outcomes[RIGHT], HOSTILE: outcomes[REFUSED], LEAVING: outcomes[LEFT]}
    counts[OTHER] = len(judged) - sum(counts.values())
    right = [each for each in judged if each.right]
    return Window(
        begin=begin,
        seconds=seconds,
        rates={name: count / seconds for name, count in counts.items()},
        errors=dict(sorted(Counter(_errors(judged)).items())),
        p50_ms=percentile_ms(right, 50),
        p99_ms=percentile_ms(right, 99),
    )


def _errors(judged: Sequence[Judged]) -> list[str]:
    statuses = (each.answer.status for each in judged if each.outcome != LEFT)
    return [
        "no answer" if status == NO_ANSWER else str(status)
        for status in statuses
        if status != HTTPStatus.OK
    ]
