"""Which of the measured settings to take, by a rule that can be read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.load.points import Point
from bench.load.serving import ServingSettings

# A lone request takes longer where several workers share the cores, which carry most.
LIGHT_LOAD_FACTOR = 1.5


@dataclass(frozen=True)
class Recommendation:
    """The settings to take.

    Attributes:
        settings: None where a server that ran already was measured.
        best: their point of the highest throughput that the rule allows.
        limit_ms: the p99 that the rule asked for.
        light: whether it asked for that under light load alone.
        rule: a sentence.
    """

    settings: ServingSettings | None
    best: Point
    limit_ms: float
    light: bool
    rule: str


def recommend(points: Iterable[Point], p99_ms: float | None = None) -> Recommendation | None:
    """The settings of the highest throughput that a limit on p99 allows.

    Points with a failure and those of an open loop do not count.

    Args:
        points: of all settings.
        p99_ms: the limit, which each point has to keep itself. None: under light load, which is
            the fewest clients, a setting keeps within LIGHT_LOAD_FACTOR of the best setting there.

    Returns:
        None where no point keeps the limit.
    """
    closed = [each for each in points if each.clients and not each.load.failures]
    closed = [each for each in closed if each.load.latency_ms]
    if p99_ms is not None:
        allowed = [each for each in closed if p99(each) <= p99_ms]
        rule = f"the highest throughput of all points whose p99 is at most {p99_ms:g} ms"
        return _choose(allowed, p99_ms, rule, light=False)
    light = light_load(closed)
    if not light:
        return None
    limit_ms = LIGHT_LOAD_FACTOR * min(map(p99, light))
    quick = {each.settings for each in light if p99(each) <= limit_ms}
    clients = "1 client" if light[0].clients == 1 else f"{light[0].clients} clients"
    rule = (
        f"the highest throughput among the settings whose p99 with {clients} is at most "
        f"{LIGHT_LOAD_FACTOR:g} times the best one's, {limit_ms:.0f} ms"
    )
    allowed = [each for each in closed if each.settings in quick]
    return _choose(allowed, limit_ms, rule, light=True)


def light_load(points: Sequence[Point]) -> list[Point]:
    """Those of the fewest clients."""
    fewest = min((each.clients for each in points if each.clients), default=0)
    return [each for each in points if fewest and each.clients == fewest]


def p99(point: Point) -> float:
    """Milliseconds."""
    return point.load.latency_ms[99]


def _choose(
    allowed: Sequence[Point], limit_ms: float, rule: str, *, light: bool
) -> Recommendation | None:
    if not allowed:
        return None
    best = max(allowed, key=lambda each: each.load.requests_per_s)
    return Recommendation(best.settings, best, limit_ms, light, rule)
