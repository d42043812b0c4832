"""A server that is sent several times the requests that it can process: its throughput then, how
fast it rejects the rest, and how soon it has recovered."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.arguments import add_target, parser_of, positive
from bench.loadgen.client import Group, Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Plan, Record, Recording, generate
from bench.loadgen.load import Load, image_requests, measure, request_once
from bench.plots import Line, LinePanel
from bench.report import Table, progress, write_report
from d2serve.client.images import find_images
from d2serve.servers.torchserve.launcher.server import running_server

LOGS = Path("logs", "overload")
# Two batches for each of an archive's two workers: one runs while the next one fills.
CLIENTS_AT_CAPACITY = 32
PROBE_PAUSE_S = 0.1
# Latency of a recovered server, relative to an idle one.
RECOVERED = 2.0
WATCHED_S = 30.0


class Overload(NamedTuple):
    """Load at capacity before and after, and in between; `recovered_s` is None for never. Probes
    are requests of one more client, in seconds from the start of the overload."""

    before: Load
    overload: Load
    after: Load
    recovered_s: float | None
    probes: Sequence[Record] = ()

    def rows(self) -> Iterator[tuple[str, str]]:
        """Rows of the table; capacity is the mean of before and after."""
        before, after, load = self.before.requests_per_s, self.after.requests_per_s, self.overload
        sent, capacity = load.requests / load.seconds, (before + after) / 2
        yield "capacity", f"{before:.2f} before and {after:.2f} after, requests/s"
        yield "sent", f"{sent:.2f} requests/s, {sent / capacity:.2f} of capacity"
        share = load.requests_per_s / capacity
        yield "processed", f"{load.requests_per_s:.2f} requests/s, {share:.2f} of capacity"
        for name, latency in (("processed", load.latency_ms), ("503", load.rejected_latency_ms)):
            yield f"{name}, median latency", f"{latency[50]:.0f} ms" if latency else "none"
        yield "statuses (0: no response)", str(dict(load.statuses))
        recovered = self.recovered_s
        yield "recovered after", "not in time" if recovered is None else f"{recovered:.1f} s"
        yield "CPU of the load generator", f"{load.generator_cpu_percent:.0f} % of a core"


def recovery_s(probes: Sequence[Record], idle_s: float, ended: float) -> float | None:
    """Seconds from the end of an overload to the first response as fast as on an idle server."""
    later = (probe for probe in probes if probe.due >= ended and probe.good)
    limit_s = RECOVERED * idle_s
    return next((each.done - ended for each in later if each.done - each.due <= limit_s), None)


def overload(url: str, requests: Sequence[Request], seconds: float, factor: float) -> Overload:
    """Measure a running server, which is idle."""
    traffic = ClosedLoop(CLIENTS_AT_CAPACITY)
    at_capacity = partial(measure, url, requests, traffic, seconds, warm_up_s=5)
    progress("capacity")
    before = at_capacity()
    idle_s = sorted(request_once(url, requests[0])[1] for _ in range(9))[4]
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
    progress("capacity again")
    return Overload(before, load, at_capacity(), recovery_s(probes, idle_s, seconds), probes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a server of our own, or a running one; writes overload.json, .md and .png."""
    parser = parser_of("overload", __doc__)
    add_target(parser)
    parser.add_argument("--seconds", type=positive, default=60, help="of each load")
    parser.add_argument("--factor", type=positive, default=4, help="of the capacity")
    given = parser.parse_args(arguments)
    requests, how = image_requests(find_images(given.images)), (given.seconds, given.factor)
    if given.url:
        found = overload(given.url, requests, *how)
    else:
        with running_server(given.model, log_dir=LOGS, with_proxy=True) as server:
            found = overload(f"{server.url}/invocations", requests, *how)
    x = [each.due for each in found.probes]
    lines = [Line("probes", x, [1e3 * (each.done - each.due) for each in found.probes], "o")]
    title, shaded = "Latency of the probes; the overload is shaded", [(0.0, given.seconds)]
    panel = LinePanel(title, "s", "ms", lines, log_y=True, shaded=shaded)
    table = Table("Overload", ("figure", "value"), list(found.rows()))
    write_report(given.output / "overload", [table], found._asdict(), [panel])
    return 0
