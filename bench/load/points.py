"""Settings and measured points of a sweep, and which settings to choose."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from bench.loadgen.generator import ClosedLoop, Traffic
from bench.loadgen.load import SATURATED_PERCENT, Load
from d2serve.serving.cpu import available_cpus

# A lone request takes longer where several workers share the cores, which have the most capacity.
LIGHT_LOAD_FACTOR = 1.5
# The 99th percentile of fewer requests is the slowest of them.
MIN_FOR_P99 = 100


class ServingSettings(NamedTuple):
    """batchSize, maxBatchDelay, minWorkers = maxWorkers and handler.threads of the model config."""

    batch_size: int
    max_delay_ms: int
    workers: int
    threads: int

    def as_config(self) -> dict[str, Any]:
        """Keys of model-config.yaml."""
        batches = {"batchSize": self.batch_size, "maxBatchDelay": self.max_delay_ms}
        workers = {"minWorkers": self.workers, "maxWorkers": self.workers}
        return {**batches, **workers, "handler": {"threads": self.threads}}

    def __str__(self) -> str:
        counts = ((self.workers, "worker"), (self.threads, "thread"))
        processes = " x ".join(f"{count} {noun}{'s'[: count > 1]}" for count, noun in counts)
        return f"{processes}, batch {self.batch_size}, {self.max_delay_ms} ms"


def grid(
    batch_sizes: Sequence[int],
    delays_ms: Sequence[int],
    workers: Sequence[int],
    threads: int | None,
    cpus: Callable[[], int] = available_cpus,
) -> list[ServingSettings]:
    """All combinations, with one delay for batches of one. Numbers of workers beyond the available
    CPUs are left out, except the smallest; without `threads`, the workers share the CPUs."""
    cores = cpus()
    return [
        ServingSettings(batch_size, delay_ms, count, threads or max(1, cores // count))
        for count in sorted(set(workers))
        if count <= max(cores, min(workers))
        for batch_size in sorted(set(batch_sizes))
        for delay_ms in (sorted(set(delays_ms)) if batch_size > 1 else [min(delays_ms)])
    ]


class Point(NamedTuple):
    """Load of one setting (None: of a running server) under one kind of traffic."""

    settings: ServingSettings | None
    traffic: Traffic
    load: Load

    @property
    def clients(self) -> int:
        """Of a closed loop, else 0."""
        return self.traffic.clients if isinstance(self.traffic, ClosedLoop) else 0

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency."""
        return self.load.latency_ms[99]


class Recommendation(NamedTuple):
    """The best point that a limit on p99 allows, and the rule in words."""

    best: Point
    limit_ms: float
    rule: str


def recommend(points: Iterable[Point], p99_ms: float | None = None) -> Recommendation | None:
    """The closed loop without failures with the highest throughput that a limit on p99 allows:
    `p99_ms` for each point. Without, the limit is for settings: with the fewest clients, their p99
    is at most LIGHT_LOAD_FACTOR times that of the best setting."""
    closed = [p for p in points if p.clients and p.load.latency_ms and not p.load.failures]
    if not closed:
        return None
    if p99_ms is not None:
        allowed = [each for each in closed if each.p99_ms <= p99_ms]
        limit_ms, rule = p99_ms, f"the highest throughput with a p99 of at most {p99_ms:g} ms"
    else:
        fewest = min(each.clients for each in closed)
        light = [each for each in closed if each.clients == fewest]
        limit_ms = LIGHT_LOAD_FACTOR * min(each.p99_ms for each in light)
        fast = {each.settings for each in light if each.p99_ms <= limit_ms}
        allowed = [each for each in closed if each.settings in fast]
        rule = (
            f"the highest throughput among settings whose p99 with {light[0].traffic} is at most "
            f"{LIGHT_LOAD_FACTOR:g} times the best one's, {limit_ms:.0f} ms"
        )
    best = max(allowed, key=lambda each: each.load.requests_per_s, default=None)
    return best and Recommendation(best, limit_ms, rule)


def notes_of(points: Sequence[Point], p99_ms: float | None) -> Iterator[str]:
    """The recommendation in sentences, and reasons to distrust the figures."""
    chosen = recommend(points, p99_ms)
    if chosen is None:
        limit = "" if p99_ms is None else f" and with a p99 of at most {p99_ms:g} ms"
        yield f"no recommendation: no closed loop was measured without a failed request{limit}."
    else:
        best, load = chosen.best, chosen.best.load
        if best.settings:
            block = yaml.safe_dump(best.settings.as_config(), sort_keys=False)
            yield f"recommended for model-config.yaml ({chosen.rule}):\n\n{block}"
        latency = f"p50 {load.latency_ms[50]:.0f} ms, p99 {best.p99_ms:.0f} ms"
        yield f"With {best.traffic}: {load.requests_per_s:.1f} requests/s, {latency}."
        if load.requests < MIN_FOR_P99:
            yield f"This is based on {load.requests} requests; use longer --seconds for its p99."
    busy = sum(each.load.generator_cpu_percent > SATURATED_PERCENT for each in points)
    if busy:
        yield f"The load generator was saturated at {busy} of {len(points)} points."
    failed, sent = (sum(getattr(p.load, of) for p in points) for of in ("failures", "requests"))
    if failed:
        yield f"{failed} of {sent} requests failed; the table shows where, and the statuses."
