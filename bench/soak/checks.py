"""Checks of a soak: faults, restarts, latency over time and growth of memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bench.processes import ROLES, Snapshot, Usage
from bench.soak import outcomes
from bench.soak.outcomes import NEVER, RIGHT, Checked, Restart, doubled

MAX_P99_RATIO = 2.0
# Growth is harmless below a share, or in a small process.
MAX_GROWTH, NEGLIGIBLE_BYTES = 0.05, 10e6
MIN_FOR_P99 = 100
THE_SERVER = "the whole server"
# A process warms up for a minute, or for a third of a shorter life; then the first tenth is
# compared with the last one.
WARM_UP_S, PARTS = 60.0, 10


class Check(NamedTuple):
    """A check, as a row of the table."""

    name: str
    required: str
    measured: str
    passed: bool


class Growth(NamedTuple):
    """Median bytes in the first and in the last tenth of a life."""

    of: str
    first: float
    last: float


def checks(
    checked: Sequence[Checked],
    restarts: Sequence[Restart],
    kills: int,
    growth: Sequence[Growth],
    seconds: float,
) -> Iterator[Check]:
    """All checks of a window of `seconds`, in which `kills` workers should have been killed."""
    counts = Counter(each.outcome for each in checked)
    right = counts[RIGHT]
    yield Check("right responses to good requests", "at least 1", f"{right}", right > 0)
    faults = {
        "wrong responses to good requests": counts[outcomes.WRONG],
        "hostile requests not refused as required": counts[outcomes.NOT_REFUSED],
        "lost requests": counts[outcomes.LOST],
        "5xx outside the restarts, or without an error of the contract": counts[outcomes.FAILED],
        "doubled responses": doubled([each.record for each in checked]),
    }
    for name, count in faults.items():
        yield Check(name, "0", f"{count}", count == 0)
    back = sum(restart.back_at < NEVER for restart in restarts)
    yield Check("killed workers that are back", f"{kills}", f"{back}", back == kills)
    first, *later = p99_by_minute(checked, seconds) or [None]
    worst = max((p99 for p99 in later if p99 is not None), default=None)
    overall = percentile_ms(_undisturbed(checked), 99)
    for name, p99 in (("p99", overall), ("worst minute's p99", worst)):
        measured, passed = "not measured", False
        if first is not None and p99 is not None:
            measured = f"{p99 / first:.2f} ({p99:.0f} / {first:.0f} ms)"
            passed = p99 <= MAX_P99_RATIO * first
        limit = f"at most {MAX_P99_RATIO:g}"
        yield Check(f"{name} / p99 of the first minute", limit, measured, passed)
    required = f"below {MAX_GROWTH:.0%}, or {NEGLIGIBLE_BYTES / 1e6:.0f} MB"
    if not growth:
        yield Check("memory growth", required, "not measured", False)
    for each in growth:
        share = each.last / each.first - 1
        measured = f"{share:+.1%} ({each.first / 1e6:.0f} to {each.last / 1e6:.0f} MB)"
        passed = share < MAX_GROWTH or each.last - each.first < NEGLIGIBLE_BYTES
        yield Check(f"memory growth: {each.of}", required, measured, passed)


def minute_s(seconds: float) -> float:
    """Length of a minute: a third of a short run."""
    return min(60.0, seconds / 3)


def in_windows(checked: Sequence[Checked], length: float, count: int) -> list[list[Checked]]:
    """Requests by when they were due, in `count` windows of `length` seconds."""
    windows: list[list[Checked]] = [[] for _ in range(count)]
    for each in checked:
        if 0 <= each.record.due < length * count:
            windows[min(int(each.record.due / length), count - 1)].append(each)
    return windows


def percentile_ms(checked: Sequence[Checked], percent: float) -> float | None:
    """Latency of these requests; None without any."""
    latencies = [each.record.done - each.record.due for each in checked]
    return 1000 * float(np.percentile(latencies, percent)) if latencies else None


def p99_by_minute(checked: Sequence[Checked], seconds: float) -> list[float | None]:
    """In ms, of right responses outside the restarts; None for fewer than MIN_FOR_P99."""
    length = minute_s(seconds)
    minutes = in_windows(_undisturbed(checked), length, int(seconds / length + 1e-6))
    return [percentile_ms(own, 99) if len(own) >= MIN_FOR_P99 else None for own in minutes]


def _undisturbed(checked: Sequence[Checked]) -> list[Checked]:
    right = (each for each in checked if each.outcome == RIGHT and not each.restart)
    return [each for each in right if each.record.due >= 0]


def growths(snapshots: Sequence[Snapshot], restarts: Sequence[Restart]) -> list[Growth]:
    """Growth of the whole server, and for each role that of the process that grew most.

    Snapshots within a restart do not count, because a process is missing or loading.
    """
    lives: dict[str, dict[int, list[tuple[float, int]]]] = {}
    for each in snapshots:
        if not any(restart.overlaps(each.moment, each.moment) for restart in restarts):
            for process, usage in {0: Usage(THE_SERVER, each.resident()), **each.processes}.items():
                life = lives.setdefault(usage.role, {}).setdefault(process, [])
                life.append((each.moment, usage.resident))
    found = []
    for role in (THE_SERVER, *ROLES):
        grown = filter(None, (_growth(role, life) for life in lives.get(role, {}).values()))
        found += sorted(grown, key=lambda each: each.last / each.first)[-1:]
    return found


def _growth(of: str, points: Sequence[tuple[float, int]]) -> Growth | None:
    if len(points) < 2 * PARTS:
        return None
    start, end = points[0][0], points[-1][0]
    warm = start + min(WARM_UP_S, (end - start) / 3)
    tenth = (end - warm) / PARTS
    first = [size for moment, size in points if warm <= moment <= warm + tenth]
    last = [size for moment, size in points if moment >= end - tenth]
    return Growth(of, float(np.median(first)), float(np.median(last))) if first else None
