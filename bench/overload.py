"""A server that is sent several times the requests that it can process: its throughput then, how
fast it rejects the rest, and how soon it has recovered."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.arguments import add_target, parser_of, positive
from bench.loadgen.client import Group, Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Plan, Record, Recording, generate
from bench.loadgen.load import Load, image_requests, measure, request_once
from bench.plots import Line, LinePanel
from bench.report import Table, progress, write_report
from bench.served import SERVERS, TORCHSERVE
from d2serve.client.images import find_images

LOGS = Path("logs", "overload")
# Two batches for each of an archive's two workers: one runs while the next one fills.
CLIENTS_AT_CAPACITY = 32
PROBE_PAUSE_S = 0.1
# Latency of a recovered server, relative to the slowest usual one of an idle server.
RECOVERED = 1.5
IDLE_PROBES = 20
WATCHED_S = 30.0
WARM_UP_S = 5.0
PERCENTILES = (50, 99)


class Overload(NamedTuple):
    """Load at capacity before and after, and in between; `recovered_s` is None for never, and
    `normal_ms` the latency below which a server has recovered. Probes are requests of one more
    client, in seconds from the start of the overload."""

    before: Load
    overload: Load
    after: Load
    recovered_s: float | None
    normal_ms: float
    probes: Sequence[Record] = ()

    @property
    def capacity(self) -> float:
        """Requests/s at saturation: the mean of before and after."""
        return (self.before.requests_per_s + self.after.requests_per_s) / 2

    @property
    def goodput(self) -> float:
        """Successful responses/s of the overload, relative to the capacity."""
        return self.overload.requests_per_s / self.capacity

    def rows(self) -> Iterator[tuple[str, str]]:
        """Rows of the table."""
        before, after, load = self.before.requests_per_s, self.after.requests_per_s, self.overload
        sent = load.requests / load.seconds
        yield "capacity", f"{before:.2f} before and {after:.2f} after, requests/s"
        yield "sent", f"{sent:.2f} requests/s, {sent / self.capacity:.2f} of capacity"
        yield "goodput", f"{load.requests_per_s:.2f} requests/s, {self.goodput:.3f} of capacity"
        for name, latency in (("200", load.latency_ms), ("503", load.rejected_latency_ms)):
            for percent in PERCENTILES:
                figure = f"{latency[percent]:.1f} ms" if latency else "none"
                yield f"time to a {name}, p{percent}", figure
        yield "statuses (0: no response)", str(dict(load.statuses))
        recovered = self.recovered_s
        yield "recovered after", "not in time" if recovered is None else f"{recovered:.1f} s"
        yield "latency of a recovered server", f"at most {self.normal_ms:.0f} ms"
        yield "CPU of the load generator", f"{load.generator_cpu_percent:.0f} % of a core"

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        loads = {"before": self.before, "overload": self.overload, "after": self.after}
        figures = {name: load._asdict() for name, load in loads.items()}
        derived = {"capacity": self.capacity, "goodput": self.goodput}
        probes = [(each.due, each.done, each.status) for each in self.probes]
        return {**self._asdict(), **figures, **derived, "probes": probes}


def recovery_s(probes: Sequence[Record], normal_s: float, ended: float) -> float | None:
    """Seconds from the end of an overload until a request is sent whose response is as fast as on
    an idle server."""
    later = (probe for probe in probes if probe.due >= ended and probe.good)
    return next((each.due - ended for each in later if each.done - each.due <= normal_s), None)


def overload(url: str, requests: Sequence[Request], seconds: float, factor: float) -> Overload:
    """Measure a running server, which is idle."""
    traffic = ClosedLoop(CLIENTS_AT_CAPACITY)
    at_capacity = partial(measure, url, requests, traffic, seconds, warm_up_s=WARM_UP_S)
    progress("capacity")
    before = at_capacity()
    idle_s = [request_once(url, requests[0])[1] for _ in range(IDLE_PROBES)]
    normal_s = RECOVERED * float(np.percentile(idle_s, 90))
    progress(f"{factor:g} times the capacity")
    groups, watched = [Group(1.0, requests[:1])], Recording()
    plan = Plan(url, groups, ClosedLoop(1, PROBE_PAUSE_S), seconds + WATCHED_S, timeout_s=120)
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(generate, plan, watched)
        load = measure(url, requests, OpenLoop(factor * before.requests_per_s), seconds)
        probing.result()
    earlier = load.began_at - watched.began_at
    moved = ((each, each.due - earlier, each.done - earlier) for each in watched.records)
    probes = [each._replace(due=due, done=done) for each, due, done in moved]
    recovered_s = recovery_s(probes, normal_s, seconds)
    progress("capacity again")
    return Overload(before, load, at_capacity(), recovered_s, 1e3 * normal_s, probes)


@contextmanager
def on_cpus(cpus: Sequence[int]) -> Iterator[None]:
    """Run this thread, and the processes that it starts, on these CPUs while the block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a server of our own, or a running one; writes overload-SERVER.json, .md and .png."""
    parser = parser_of("overload", __doc__)
    add_target(parser)
    kinds = "to start, without --url"
    parser.add_argument("--server", choices=SERVERS, default=TORCHSERVE, help=kinds)
    parser.add_argument("--seconds", type=positive, default=60, help="of each load")
    parser.add_argument("--factor", type=positive, default=4, help="of the capacity")
    text = "run a started server on half of the CPUs, and the load generator on the others"
    parser.add_argument("--separate-cpus", action="store_true", help=text)
    given = parser.parse_args(arguments)
    requests, how = image_requests(find_images(given.images)), (given.seconds, given.factor)
    if given.url:
        found, name = overload(given.url, requests, *how), "overload"
    else:
        name = f"overload-{given.server}" + "-separate-cpus" * given.separate_cpus
        cpus = sorted(os.sched_getaffinity(0))
        half = len(cpus) // 2 if given.separate_cpus else 0
        with ExitStack() as stack:
            with on_cpus(cpus[half:]):
                server = stack.enter_context(SERVERS[given.server](given.model, LOGS))
            with on_cpus(cpus[:half] or cpus):
                found = overload(server.url, requests, *how)
    x = [each.due for each in found.probes]
    lines = [Line("probes", x, [1e3 * (each.done - each.due) for each in found.probes], "o")]
    title, shaded = "Latency of the probes; the overload is shaded", [(0.0, given.seconds)]
    levels = {"recovered": found.normal_ms}
    panel = LinePanel(title, "s", "ms", lines, log_y=True, shaded=shaded, levels=levels)
    table = Table("Overload", ("figure", "value"), list(found.rows()))
    write_report(given.output / name, [table], found.as_json(), [panel])
    return 0
