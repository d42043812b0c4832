"""Measured points of a sweep: what limits each, and which settings to choose."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.http.generator import ClosedLoop, Traffic
from bench.http.load import Load
from bench.load.settings import ServingSettings, counted
from bench.processes import CpuUse

# A saturated thread still waits now and then for locks and for cores.
BUSY_THREAD, BUSY_MACHINE = 0.85, 0.9
GENERATOR, MACHINE, WORKERS, FRONTEND = "generator", "cores", "workers", "frontend"
NOTHING, UNKNOWN = "nothing", "unknown"
# A lone request takes longer where several workers share the cores, which have the most capacity.
LIGHT_LOAD_FACTOR = 1.5
# The 99th percentile of fewer requests is the slowest of them.
MIN_FOR_P99 = 100
FOREIGN_SHARE = 0.15
LIMITS = {
    GENERATOR: "The load generator is saturated (over 90 % of its core): the server may be faster.",
    MACHINE: "All cores of the machine are busy.",
    WORKERS: "The workers are saturated: each has a thread that is always busy.",
    FRONTEND: "TorchServe's frontend is saturated: one of its threads is always busy.",
    NOTHING: "Nothing is saturated: batches wait to fill (maxBatchDelay), or clients are too few.",
    UNKNOWN: "The saturated part is unknown: the server's processes are not visible here.",
}


@dataclass(frozen=True)
class Point:
    """Load of one setting (None: of a running server) under one kind of traffic.

    `cpu` is None where it could not be sampled; `cores` are those of the machine.
    """

    settings: ServingSettings | None
    traffic: Traffic
    load: Load
    cpu: CpuUse | None
    cores: int

    @property
    def clients(self) -> int:
        """Of a closed loop, else 0."""
        return self.traffic.clients if isinstance(self.traffic, ClosedLoop) else 0

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency."""
        return self.load.latency_ms[99]

    @property
    def generator_cores(self) -> float:
        """Cores that the load generator kept busy."""
        return self.load.generator_cpu_percent / 100

    @property
    def foreign_cores(self) -> float:
        """Cores that neither the server nor the generator kept busy; 0 where unknown."""
        if self.cpu is None:
            return 0.0
        own = self.cpu.workers + self.cpu.frontend + self.generator_cores
        return max(0.0, self.cpu.machine - own)

    @property
    def limit(self) -> str:
        """The saturated part, a key of LIMITS."""
        if self.load.generator_saturated:
            return GENERATOR
        if self.cpu is None:
            return UNKNOWN
        if self.cpu.machine >= BUSY_MACHINE * self.cores:
            return MACHINE
        if self.cpu.worker_thread >= BUSY_THREAD:
            return WORKERS
        return FRONTEND if self.cpu.frontend_thread >= BUSY_THREAD else NOTHING


@dataclass(frozen=True)
class Recommendation:
    """The best point that a limit on p99 allows, and the rule in words."""

    best: Point
    limit_ms: float
    rule: str

    @property
    def settings(self) -> ServingSettings | None:
        """None for a running server."""
        return self.best.settings


def recommend(points: Iterable[Point], p99_ms: float | None = None) -> Recommendation | None:
    """The settings with the highest throughput that a limit on p99 allows.

    Only closed loops without a failure count.

    Args:
        points: of all settings.
        p99_ms: limit for each point. None: with the fewest clients, a setting's p99 is at most
            LIGHT_LOAD_FACTOR times that of the best setting.
    """
    closed = [each for each in points if each.clients and not each.load.failures]
    closed = [each for each in closed if each.load.latency_ms]
    if not closed:
        return None
    if p99_ms is not None:
        allowed = [each for each in closed if each.p99_ms <= p99_ms]
        limit_ms, rule = p99_ms, f"the highest throughput with a p99 of at most {p99_ms:g} ms"
    else:
        light = light_load(closed)
        limit_ms = LIGHT_LOAD_FACTOR * min(each.p99_ms for each in light)
        fast = {each.settings for each in light if each.p99_ms <= limit_ms}
        allowed = [each for each in closed if each.settings in fast]
        rule = (
            f"the highest throughput among settings whose p99 with {light[0].traffic} is at most "
            f"{LIGHT_LOAD_FACTOR:g} times the best one's, {limit_ms:.0f} ms"
        )
    best = max(allowed, key=lambda each: each.load.requests_per_s, default=None)
    return best and Recommendation(best, limit_ms, rule)


def light_load(points: Sequence[Point]) -> list[Point]:
    """The closed loops with the fewest clients."""
    fewest = min((each.clients for each in points if each.clients), default=0)
    return [each for each in points if fewest and each.clients == fewest]


def summary(chosen: Recommendation | None, p99_ms: float | None) -> list[str]:
    """The recommendation in sentences."""
    if chosen is None:
        limit = "" if p99_ms is None else f" and with a p99 of at most {p99_ms:g} ms"
        return [f"no recommendation: no closed loop was measured without a failed request{limit}."]
    best, load = chosen.best, chosen.best.load
    lines = [
        f"With {best.traffic}: {load.requests_per_s:.1f} requests/s, "
        f"p50 {load.latency_ms[50]:.0f} ms, p99 {best.p99_ms:.0f} ms.",
        LIMITS[best.limit],
    ]
    if best.cpu:
        lines[1] += (
            f" Of {best.cores} cores the workers used {best.cpu.workers:.2f}, the frontend "
            f"{best.cpu.frontend:.2f}, the generator {best.generator_cores:.2f}, and everything "
            f"else on the machine {best.foreign_cores:.2f}."
        )
    if chosen.settings is None:
        return lines
    block = chosen.settings.as_yaml()
    return [f"recommended for model-config.yaml ({chosen.rule}):\n\n{block}", *lines]


def warnings(points: Sequence[Point], chosen: Recommendation | None) -> Iterator[str]:
    """Reasons to distrust the figures."""
    busy = sum(each.limit == GENERATOR for each in points)
    if busy:
        yield f"The load generator was saturated at {busy} of {len(points)} points."
    crowded = sum(each.foreign_cores > FOREIGN_SHARE * each.cores for each in points)
    if crowded:
        yield (
            f"Other programs kept over {FOREIGN_SHARE:.0%} of the machine busy at {crowded} of "
            f"{len(points)} points; on a quiet machine the recommendation may differ."
        )
    failed, sent = (sum(getattr(each.load, of) for each in points) for of in ("failures", "requests"))
    if failed:
        yield f"{failed} of {sent} requests failed; the table shows where, and the statuses."
    if chosen and chosen.best.load.requests < MIN_FOR_P99:
        requests = counted(chosen.best.load.requests, "request")
        yield f"The recommendation is based on {requests}; measure longer (--seconds) for its p99."
