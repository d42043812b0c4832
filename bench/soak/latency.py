"""Latency of the right answers to good requests, over time."""

from collections.abc import Sequence

import numpy as np

from bench.soak.outcomes import Judged

MINUTE_S = 60.0
# Fewer say nothing of a 99th percentile.
LEAST_FOR_P99 = 100


def minute_seconds(seconds: float) -> float:
    """How long a minute is: a third of a short run, so that it has a first and others too."""
    return min(MINUTE_S, seconds / 3)


def percentile_ms(judged: Sequence[Judged], percent: float) -> float | None:
    """Of requests that were answered; None where there are none."""
    waited = [each.took_s for each in judged]
    return 1000 * float(np.percentile(waited, percent)) if waited else None


def calm(judged: Sequence[Judged]) -> list[Judged]:
    """Right answers to good requests, sent after the warm-up, none of which a restart held up."""
    return [each for each in judged if each.right and each.answer.due >= 0 and not each.restart]


def p99_by_minute(judged: Sequence[Judged], seconds: float) -> list[float | None]:
    """In ms, of those that are calm, by when they were sent; None where there are too few."""
    length = minute_seconds(seconds)
    minutes: list[list[Judged]] = [[] for _ in range(int(seconds / length + 1e-6))]
    for each in calm(judged):
        minute = int(each.answer.due / length)
        if minute < len(minutes):
            minutes[minute].append(each)
    return [
        percentile_ms(minute, 99) if len(minute) >= LEAST_FOR_P99 else None for minute in minutes
    ]
