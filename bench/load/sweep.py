"""Measures point after point: settings x clients in a closed loop, then one setting's open loop."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from bench.load.cpu import sampling
from bench.load.driver import TIMEOUT_S, measure
from bench.load.points import Point
from bench.load.recommendation import recommend
from bench.load.servers import KeptServer, Opened, Opener
from bench.load.serving import ServingSettings
from bench.load.traffic import ClosedLoop, OpenLoop, Target, Traffic
from scripts.errors import CommandError

# A point takes at least as long as each client sends so many requests.
ROUNDS = 2
RUNNING_SERVER = "the running server"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep measures.

    Attributes:
        settings: to be tried; [None] for a server that runs already.
        clients: of the closed loops.
        fractions: rates of the open loops, of the best rate in a closed one.
        seconds: of each point, at least; those at which clients wait long take longer.
        warm_up_seconds: before each point, at least.
        p99_ms: see `recommend`.
    """

    settings: Sequence[ServingSettings | None]
    clients: Sequence[int]
    fractions: Sequence[float]
    seconds: float
    warm_up_seconds: float
    p99_ms: float | None = None

    @property
    def total(self) -> int:
        """How many points there are, if every server starts."""
        return len(self.settings) * len(self.clients) + len(self.fractions)


@dataclass
class Measured:
    """What a sweep has found so far; it may end early.

    Attributes:
        points: in the order in which they were measured.
        failures: the settings that could not be measured, and why, in a line.
    """

    points: list[Point] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


# Is told what runs now, and how many points are done with since the last call.
Tell = Callable[[str, int], None]


def sweep(plan: SweepPlan, open_server: Opener, measured: Measured, tell: Tell) -> None:
    """Measures all of a plan; a server that cannot start does not keep the others from it.

    Args:
        plan: what to measure.
        open_server: starts a server, or takes the one that runs.
        measured: receives each point as it is measured, so that an interrupted sweep is not lost.
        tell: shows the progress.
    """
    closed = [ClosedLoop(clients) for clients in plan.clients]
    with KeptServer(open_server) as servers:
        for settings in plan.settings:
            _measure_all(plan, settings, closed, servers, measured, tell)
        best = recommend(measured.points, plan.p99_ms)
        if best:
            rate = best.best.load.requests_per_s
            opened = [OpenLoop(fraction * rate) for fraction in plan.fractions]
            _measure_all(plan, best.settings, opened, servers, measured, tell)


def _measure_all(
    plan: SweepPlan,
    settings: ServingSettings | None,
    traffics: Sequence[Traffic],
    servers: KeptServer,
    measured: Measured,
    tell: Tell,
) -> None:
    """Measures one setting, or notes why it cannot be measured."""
    name = str(settings) if settings else RUNNING_SERVER
    tell(f"{name}: starting", 0)
    left = len(traffics)
    try:
        server = servers.open(settings)
        answer_s = _try(server.target)
        for traffic in traffics:
            tell(f"{name}: {traffic}", 0)
            wait_s = answer_s * (traffic.clients if isinstance(traffic, ClosedLoop) else 1)
            point = _measure(plan, settings, server, traffic, wait_s)
            measured.points.append(point)
            if point.load.requests_per_s:
                answer_s = 1 / point.load.requests_per_s
            tell(f"{name}: {traffic}", 1)
            left -= 1
    except CommandError as error:
        measured.failures[name] = str(error).splitlines()[0]
        tell(f"{name}: failed", left)


def _measure(
    plan: SweepPlan,
    settings: ServingSettings | None,
    server: Opened,
    traffic: Traffic,
    wait_s: float,
) -> Point:
    """Measures one point; its clients will wait about `wait_s` for an answer."""
    with sampling(server.process) as samples:
        load = measure(
            server.target,
            traffic,
            max(plan.seconds, ROUNDS * wait_s),
            warm_up_seconds=max(plan.warm_up_seconds, wait_s),
        )
    cpu = samples.use(load.began_at, load.seconds)
    return Point(settings, traffic, load, cpu, os.cpu_count() or 1)


def _try(target: Target) -> float:
    """The seconds that the first picture takes.

    Raises:
        CommandError: it is not answered with a 200.
    """
    picture = target.pictures[0]
    try:
        answer = httpx.post(
            target.url,
            content=picture.read_bytes(),
            headers=target.headers_of(picture),
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(f"{target.url}: {error or type(error).__name__}") from error
    if answer.status_code != HTTPStatus.OK:
        told = " ".join(answer.text.split())[:200]
        raise CommandError(f"{target.url} answered {picture} with {answer.status_code}: {told}")
    return answer.elapsed.total_seconds()
