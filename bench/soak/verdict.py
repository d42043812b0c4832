"""What a soak has to show, and whether it did."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.soak.growth import Growth
from bench.soak.latency import calm, p99_by_minute, percentile_ms
from bench.soak.outcomes import FAILED, LOST, RIGHT, WRONG, WRONGLY_REFUSED, Judged, doubled
from bench.soak.restarts import NEVER, Restart

LARGEST_P99_RATIO = 2.0
LARGEST_GROWTH = 0.05
# What a small process takes more without being any worse for it.
NEGLIGIBLE_BYTES = 10e6
NOTHING = "not measured"


@dataclass(frozen=True)
class Criterion:
    """One of them, as a row of a table."""

    name: str
    wanted: str
    measured: str
    held: bool


def verdict(
    judged: Sequence[Judged],
    restarts: Sequence[Restart],
    kills: int,
    growths: Sequence[Growth],
    seconds: float,
) -> list[Criterion]:
    """All criteria.

    Args:
        judged: all requests.
        restarts: in the answers' time.
        kills: how many there should have been.
        growths: of the memory.
        seconds: of the window.
    """
    return [
        *_of_answers(judged),
        _of_restarts(restarts, kills),
        *_of_latency(judged, seconds),
        *_of_memory(growths),
    ]


def _of_answers(judged: Sequence[Judged]) -> Iterator[Criterion]:
    outcomes = Counter(each.outcome for each in judged)
    right = outcomes[RIGHT]
    yield Criterion("right answers to good requests", "at least 1", f"{right}", right > 0)
    for name, outcome in (
        ("wrong answers to good requests", WRONG),
        ("hostile requests not refused as they have to be", WRONGLY_REFUSED),
        ("lost requests", LOST),
        ("5xx outside the restarts, or not in the contract's form", FAILED),
    ):
        yield _none_of(name, outcomes[outcome])
    yield _none_of("second answers", doubled([each.answer for each in judged]))


def _none_of(name: str, count: int) -> Criterion:
    return Criterion(name, "0", f"{count}", count == 0)


def _of_restarts(restarts: Sequence[Restart], kills: int) -> Criterion:
    back = sum(restart.back_at < NEVER for restart in restarts)
    return Criterion("killed workers that are back", f"{kills}", f"{back}", back == kills)


def _of_latency(judged: Sequence[Judged], seconds: float) -> Iterator[Criterion]:
    first, *others = p99_by_minute(judged, seconds) or [None]
    told = [p99 for p99 in others if p99 is not None]
    for name, p99 in (
        ("p99 / p99 of the first minute", percentile_ms(calm(judged), 99)),
        ("worst minute's p99 / p99 of the first minute", max(told, default=None)),
    ):
        wanted = f"at most {LARGEST_P99_RATIO:g}"
        if first is None or p99 is None:
            yield Criterion(name, wanted, NOTHING, held=False)
        else:
            measured = f"{p99 / first:.2f} ({p99:.0f} / {first:.0f} ms)"
            yield Criterion(name, wanted, measured, p99 <= LARGEST_P99_RATIO * first)


def _of_memory(growths: Sequence[Growth]) -> Iterator[Criterion]:
    if not growths:
        yield Criterion("memory's growth", f"below {LARGEST_GROWTH:.0%}", NOTHING, held=False)
    for growth in growths:
        more = growth.last - growth.first
        yield Criterion(
            f"memory's growth: {growth.what}",
            f"below {LARGEST_GROWTH:.0%}, or {NEGLIGIBLE_BYTES / 1e6:.0f} MB",
            f"{growth.share:+.1%} ({growth.first / 1e6:.0f} to {growth.last / 1e6:.0f} MB)",
            growth.share < LARGEST_GROWTH or more < NEGLIGIBLE_BYTES,
        )
