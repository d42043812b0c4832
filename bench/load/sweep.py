"""Measures settings x clients in a closed loop, then the best setting in open loops."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.http.generator import ClosedLoop, OpenLoop, Traffic
from bench.http.load import check_response, image_requests, measure
from bench.http.messages import Request
from bench.load.points import Point, recommend
from bench.load.settings import ServingSettings, configure
from bench.processes import cpu_use, family_of, listener_at, sampling
from bench.report import progress
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.server import running_server

# Requests of each client in a point, at least.
REQUESTS_PER_CLIENT = 2
RUNNING_SERVER = "the running server"
EVERY_S = 0.2


@dataclass(frozen=True)
class SweepPlan:
    """Points to measure.

    Attributes:
        settings: to try; [None] for a running server.
        clients: of the closed loops.
        fractions: rates of the open loops, relative to the best closed one.
        seconds, warm_up_s: of each point, at least; longer where clients wait long.
        p99_ms: see `recommend`.
    """

    settings: Sequence[ServingSettings | None]
    clients: Sequence[int]
    fractions: Sequence[float]
    seconds: float
    warm_up_s: float
    p99_ms: float | None = None

    @property
    def total(self) -> int:
        """Number of points, if every server starts."""
        return len(self.settings) * len(self.clients) + len(self.fractions)


@dataclass
class Measured:
    """Points so far, and the settings that could not be measured with the reason in a line."""

    points: list[Point] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A server that is ready, the requests to send, and the server's process, if known."""

    url: str
    requests: Sequence[Request]
    process: int | None


# Opens a server with these settings while a `with` block runs.
Opener = Callable[[ServingSettings | None], AbstractContextManager[Target]]


def own_server(model: Path, images: Sequence[Path], logs: Path) -> Opener:
    """Serve an unpacked model, whose model-config.yaml is rewritten for each setting."""
    requests = image_requests(images)

    @contextmanager
    def opened(settings: ServingSettings | None) -> Iterator[Target]:
        assert settings
        configure(model, settings)
        with running_server(model, log_dir=logs) as server:
            url = f"{server.url}/predictions/{server.model_name}"
            yield Target(url, requests, server.process.pid)

    return opened


def running_already(url: str, images: Sequence[Path]) -> Opener:
    """Use the server at a URL as it is."""
    requests = image_requests(images)

    @contextmanager
    def opened(_: ServingSettings | None) -> Iterator[Target]:
        yield Target(url, requests, listener_at(url))

    return opened


def sweep(plan: SweepPlan, open_server: Opener, measured: Measured) -> None:
    """Measure all points; where a server cannot start, the other settings are still measured.

    `measured` receives each point at once, so that an interrupted sweep keeps its points.
    """
    closed = [ClosedLoop(clients) for clients in plan.clients]
    with ExitStack() as stack:
        last: ServingSettings | None = None
        target: Target | None = None
        for settings in plan.settings:
            stack.close()
            last, target = settings, None
            with _noting_failures(settings, measured):
                target = stack.enter_context(open_server(settings))
                _measure_all(plan, settings, closed, target, measured)
        best = recommend(measured.points, plan.p99_ms)
        if best:
            rate = best.best.load.requests_per_s
            opened = [OpenLoop(fraction * rate) for fraction in plan.fractions]
            with _noting_failures(best.settings, measured):
                if target is None or best.settings != last:
                    stack.close()
                    target = stack.enter_context(open_server(best.settings))
                _measure_all(plan, best.settings, opened, target, measured)


@contextmanager
def _noting_failures(settings: ServingSettings | None, measured: Measured) -> Iterator[None]:
    name = str(settings or RUNNING_SERVER)
    progress(f"{name}: starting")
    try:
        yield
    except CommandError as error:
        measured.failures[name] = str(error).splitlines()[0]


def _measure_all(
    plan: SweepPlan,
    settings: ServingSettings | None,
    traffics: Sequence[Traffic],
    target: Target,
    measured: Measured,
) -> None:
    response_s = check_response(target.url, target.requests[0])
    family = family_of(target.process)
    for traffic in traffics:
        count = f"point {len(measured.points) + 1} of {plan.total}"
        progress(f"{count}: {settings or RUNNING_SERVER}: {traffic}")
        wait_s = response_s * (traffic.clients if isinstance(traffic, ClosedLoop) else 1)
        with sampling(lambda: family, EVERY_S) as snapshots:
            seconds = max(plan.seconds, REQUESTS_PER_CLIENT * wait_s)
            warm_up_s = max(plan.warm_up_s, wait_s)
            load = measure(target.url, target.requests, traffic, seconds, warm_up_s=warm_up_s)
        cpu = cpu_use(snapshots, load.began_at, load.seconds)
        measured.points.append(Point(settings, traffic, load, cpu, os.cpu_count() or 1))
        if load.requests_per_s:
            response_s = 1 / load.requests_per_s
