"""One measured point of a sweep, and what limited it."""

from dataclasses import dataclass

from bench.load.cpu import CpuUse
from bench.load.figures import Load
from bench.load.serving import ServingSettings
from bench.load.traffic import ClosedLoop, Traffic

# Threads that always have something to do wait now and then for locks and for cores.
BUSY_THREAD = 0.85
BUSY_MACHINE = 0.9
GENERATOR, MACHINE, WORKERS, FRONTEND = "generator", "cores", "workers", "frontend"
NOTHING, UNKNOWN = "nothing", "unknown"


@dataclass(frozen=True)
class Point:
    """What one setting did under one kind of traffic.

    Attributes:
        settings: None for a server that ran already.
        traffic: what it was asked for.
        load: what came of it.
        cpu: None where it could not be sampled.
        cores: of the machine.
    """

    settings: ServingSettings | None
    traffic: Traffic
    load: Load
    cpu: CpuUse | None
    cores: int

    @property
    def clients(self) -> int | None:
        """How many there were; None in an open loop."""
        return self.traffic.clients if isinstance(self.traffic, ClosedLoop) else None

    @property
    def generator_cores(self) -> float:
        """What the load generator kept busy."""
        return self.load.generator_cpu_percent / 100

    @property
    def foreign_cores(self) -> float:
        """What neither the server nor the generator kept busy; 0 where it could not be sampled."""
        if self.cpu is None:
            return 0.0
        own = self.cpu.workers + self.cpu.frontend + self.generator_cores
        return max(0.0, self.cpu.machine - own)

    @property
    def limit(self) -> str:
        """What was saturated: one of the constants above."""
        if self.load.generator_saturated:
            return GENERATOR
        if self.cpu is None:
            return UNKNOWN
        if self.cpu.machine >= BUSY_MACHINE * self.cores:
            return MACHINE
        if self.cpu.worker_thread >= BUSY_THREAD:
            return WORKERS
        return FRONTEND if self.cpu.frontend_thread >= BUSY_THREAD else NOTHING


def explain(point: Point) -> str:
    """A sentence on what limits the throughput of a point."""
    return f"{_LIMITS[point.limit]} {_use(point)}".strip()


_LIMITS = {
    GENERATOR: (
        "The load generator saturates: it used over 90 % of the one core that it can use, so the "
        "server may be quicker than shown."
    ),
    MACHINE: "All cores of the machine are busy.",
    WORKERS: "The workers saturate: each has a thread that is busy all the time.",
    FRONTEND: "TorchServe's frontend saturates: one of its threads is busy all the time.",
    NOTHING: (
        "Nothing saturates: cores, workers, frontend and generator all have time left, so requests "
        "wait for company (maxBatchDelay), or more clients would get more."
    ),
    UNKNOWN: "What saturates on the server cannot be told, as its processes are not visible here.",
}


def _use(point: Point) -> str:
    if point.cpu is None:
        return f"The generator used {point.generator_cores:.2f} cores."
    cpu = point.cpu
    return (
        f"Of {point.cores} cores the workers used {cpu.workers:.2f}, the frontend "
        f"{cpu.frontend:.2f}, the generator {point.generator_cores:.2f}, and everything else on "
        f"the machine {point.foreign_cores:.2f}."
    )
