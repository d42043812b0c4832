"""Points of a sweep that nobody measured: the more workers and the larger batches the quicker."""

from bench.load.cpu import CpuUse
from bench.load.figures import PERCENTILES, Load
from bench.load.points import Point
from bench.load.serving import ServingSettings
from bench.load.traffic import ClosedLoop, OpenLoop, Traffic

CORES = 4
IDLE = CpuUse(workers=1.0, frontend=0.2, machine=1.5, worker_thread=0.5, frontend_thread=0.1)
BUSY = CpuUse(workers=3.5, frontend=0.2, machine=3.9, worker_thread=0.95, frontend_thread=0.1)


def setting(batch_size: int = 8, max_delay_ms: int = 20, workers: int = 1) -> ServingSettings:
    return ServingSettings(batch_size, max_delay_ms, workers, CORES // workers)


def load(
    rate: float, p99_ms: float, failures: int = 0, generator_cpu_percent: float = 20.0
) -> Load:
    requests = round(4 * rate) + failures
    statuses = {200: requests - failures} | ({503: failures} if failures else {})
    latency = {name: p99_ms * (0.4 + 0.6 * (name - 50) / 49) for name in PERCENTILES}
    return Load(
        requests=requests,
        failures=failures,
        requests_per_s=rate,
        latency_ms=latency if rate else {},
        statuses=statuses,
        seconds=4.0,
        began_at=1000.0,
        generator_cpu_percent=generator_cpu_percent,
    )


def point(
    settings: ServingSettings | None,
    traffic: Traffic,
    measured: Load,
    cpu: CpuUse | None = IDLE,
) -> Point:
    return Point(settings, traffic, measured, cpu, CORES)


def sweep_of_points() -> list[Point]:
    """All that a full sweep would give: 15 settings, 4 numbers of clients, an open loop."""
    settings = [
        setting(batch_size, delay, workers)
        for workers in (1, 2, 4)
        for batch_size in (1, 4, 16)
        for delay in ((5,) if batch_size == 1 else (5, 20))
    ]
    return [
        *(_closed(each, clients) for each in settings for clients in (1, 4, 16, 32)),
        *(_open(rate) for rate in (30.0, 48.0, 57.0, 72.0)),
    ]


def _closed(settings: ServingSettings, clients: int) -> Point:
    waiting = settings.max_delay_ms if settings.batch_size > 1 else 0
    most = 20 * settings.workers**0.6 * settings.batch_size**0.15
    rate = min(most, clients * 1000 / (50 + waiting))
    cpu = BUSY if rate == most else IDLE
    return point(settings, ClosedLoop(clients), load(rate, 1400 * clients / rate), cpu)


def _open(rate: float) -> Point:
    answered = min(rate, 60.0)
    refused = round(4 * (rate - answered))
    latency = 90.0 * (1 + 5 * (rate / 60) ** 6)
    return point(setting(1, 5, 4), OpenLoop(rate), load(answered, latency, refused), BUSY)
