"""The figures of some seconds of traffic."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

from bench.load.answers import Answer

PERCENTILES = (50, 90, 95, 99)
# From here on locust itself warns that it, not the server, limits the load.
SATURATED_PERCENT = 90.0


@dataclass(frozen=True)
class Load:
    """What came of some seconds of traffic.

    Attributes:
        requests: those due within the window, however late they were answered, if at all.
        failures: how many of them have a status other than 200, or no whole answer.
        requests_per_s: good answers that arrived within the window, by its length.
        latency_ms: percentile to milliseconds from the intended sending to the whole answer, of
            the good ones; empty where there is none.
        statuses: HTTP status to number of requests; under NO_ANSWER those without an answer.
        seconds: the window's length.
        began_at: the window's begin, in seconds since 1970.
        generator_cpu_percent: of one core, within the window; the generator cannot use more.
        refused_latency_ms: as `latency_ms`, of those that got a 503.
    """

    requests: int
    failures: int
    requests_per_s: float
    latency_ms: Mapping[int, float]
    statuses: Mapping[int, int]
    seconds: float
    began_at: float
    generator_cpu_percent: float
    refused_latency_ms: Mapping[int, float] = field(default_factory=dict)

    @property
    def generator_saturated(self) -> bool:
        """Whether the generator was too busy for the figures to speak of the server alone."""
        return self.generator_cpu_percent > SATURATED_PERCENT


@dataclass(frozen=True)
class Window:
    """The measured part of a run: `seconds` from `began_at`, and the generator's own CPU time."""

    seconds: float
    began_at: float
    cpu_s: float


def summarise(answers: Sequence[Answer], window: Window) -> Load:
    """The figures of one window.

    Throughput is of what came within the window, latency of what was sent within it: counted by
    its answers, a short window would miss just the slow ones.

    Args:
        answers: all requests, those of the warm-up included.
        window: what was measured.
    """
    counted = [each for each in answers if 0 <= each.due < window.seconds]
    in_time = sum(
        each.good for each in answers if each.done is not None and 0 <= each.done < window.seconds
    )
    return Load(
        requests=len(counted),
        failures=sum(not answer.good for answer in counted),
        requests_per_s=in_time / window.seconds,
        latency_ms=_percentiles_ms([answer for answer in counted if answer.good]),
        statuses=dict(sorted(Counter(answer.status for answer in counted).items())),
        seconds=window.seconds,
        began_at=window.began_at,
        generator_cpu_percent=100 * window.cpu_s / window.seconds,
        refused_latency_ms=_percentiles_ms(
            [answer for answer in counted if answer.status == HTTPStatus.SERVICE_UNAVAILABLE]
        ),
    )


def _percentiles_ms(answers: Sequence[Answer]) -> dict[int, float]:
    waited = [each.done - each.due for each in answers if each.done is not None]
    if not waited:
        return {}
    found = 1000 * np.percentile(waited, PERCENTILES)
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}
