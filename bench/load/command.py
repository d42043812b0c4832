"""`make loadtest`: a server under load, over batch size x delay x workers x clients, with a
recommendation. Ctrl-C ends the test early, with a report of the points so far."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.arguments import INTERRUPTED, add_target, parser_of, positive, whole
from bench.load.points import Point, grid, notes_of, recommend
from bench.load.sweep import Measured, SweepPlan, opener_of, sweep, unpacked
from bench.loadgen.load import PERCENTILES, image_requests
from bench.plots import Line, LinePanel
from bench.report import Table, write_report
from d2serve.client.images import find_images
from d2serve.errors import CommandError

LOGS = Path("logs", "loadtest")
# Of full and of quick tests, and help.
PRESETS: dict[str, tuple[list[Any], list[Any], Callable[[str], float], str]] = {
    "batch_sizes": ([1, 4, 16], [8], whole, "batchSize"),
    "delays_ms": ([5, 20], [20], whole, "maxBatchDelay"),
    "workers": ([1, 2, 4], [1], whole, "minWorkers and maxWorkers"),
    "clients": ([1, 4, 16, 32], [1, 8], whole, "of the closed loops"),
    "fractions": ([0.5, 0.8, 0.95, 1.2], [0.5, 1.2], positive, "of the best rate, in open loops"),
    "seconds": ([4.0], [1.0], positive, "of a point, at least"),
    "warm_up": ([1.0], [0.5], positive, "seconds before a point, at least"),
}
COLUMNS = (
    *("settings", "traffic", "requests/s", *(f"p{percent} ms" for percent in PERCENTILES)),
    *("requests", "failed", "generator's CPU"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep and report; 1 if a setting could not be served, 130 after Ctrl-C."""
    given, plan = parse(arguments)
    measured, interrupted = Measured(), False
    try:
        with nullcontext(Path()) if given.url else unpacked(given.model) as model:
            requests = image_requests(find_images(given.images))
            sweep(plan, requests, opener_of(model, LOGS, given.url), measured)
    except KeyboardInterrupt:
        interrupted = True
    if measured.points:
        report(given.output, measured, plan, interrupted=interrupted)
    elif not interrupted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in measured.failures.items())
        raise CommandError(f"no point could be measured: {reasons}; the server's logs: {LOGS}")
    return INTERRUPTED if interrupted else int(bool(measured.failures))


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, SweepPlan]:
    """Read the command line, whose options override the preset."""
    parser = parser_of("load", __doc__, Path("out", "loadtest"))
    add_target(parser)
    parser.add_argument("--quick", action="store_true", help="one setting, half a minute")
    parser.add_argument("--p99-ms", type=positive, help="limit on the p99 of a recommended setting")
    parser.add_argument("--threads", type=whole, help="per worker; default: cores / workers")
    for name, (default, _, kind, text) in PRESETS.items():
        text += f"; default: {' '.join(f'{value:g}' for value in default)}"
        count = 1 if len(default) == 1 else "+"
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=kind, nargs=count, metavar="N", help=text)
    given = parser.parse_args(arguments)
    value: dict[str, Any] = {
        name: getattr(given, name) or each[given.quick] for name, each in PRESETS.items()
    }
    settings = grid(value["batch_sizes"], value["delays_ms"], value["workers"], given.threads)
    loops = (sorted(set(value["clients"])), value["fractions"])
    times = (value["seconds"][0], value["warm_up"][0])
    return given, SweepPlan([None] if given.url else settings, *loops, *times, given.p99_ms)


def report(folder: Path, measured: Measured, plan: SweepPlan, *, interrupted: bool) -> None:
    """Write loadtest.json, .md and .png."""
    points = measured.points
    notes = [*notes_of(points, plan.p99_ms)]
    notes += [f"not measured: {name}: {reason}" for name, reason in measured.failures.items()]
    if interrupted:
        notes.append(f"Interrupted after {len(points)} points.")
    chosen = recommend(points, plan.p99_ms)
    settings = chosen and chosen.best.settings
    data = {
        "interrupted": interrupted,
        "failures": measured.failures,
        "recommended": settings and settings.as_config(),
        "rule": chosen and chosen.rule,
        "points": list(map(_as_json, points)),
    }
    table = Table("Closed and open loops", COLUMNS, list(map(row, points)))
    panels = list(_panels(points, chosen and chosen.best))
    write_report(folder / "loadtest", [table], data, panels, notes)


def _as_json(point: Point) -> dict[str, object]:
    loop = {"loop": type(point.traffic).__name__, **asdict(point.traffic)}
    settings = point.settings and point.settings._asdict()
    return {"settings": settings, "load": point.load._asdict(), "traffic": loop}


def row(point: Point) -> tuple[str, ...]:
    """A row of the table."""
    load = point.load
    kinds = {str(code or "no response"): count for code, count in load.statuses.items()}
    kinds["incomplete"] = load.failures - (load.requests - kinds.pop("200", 0))
    failed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items() if count)
    names = (str(point.settings or "-"), str(point.traffic), f"{load.requests_per_s:.1f}")
    latencies = [load.latency_ms.get(percent) for percent in PERCENTILES]
    texts = ["-" if each is None else f"{each:.0f}" for each in latencies]
    return (*names, *texts, str(load.requests), failed, f"{load.generator_cpu_percent:.0f} %")


def _panels(points: Sequence[Point], best: Point | None) -> Iterator[LinePanel]:
    closed = sorted((each for each in points if each.clients), key=lambda each: each.clients)
    ticks, lines = [each.clients for each in closed], []
    for settings in dict.fromkeys(each.settings for each in closed):
        own = [each for each in closed if each.settings == settings]
        style = "o-" if best and settings == best.settings else ".--"
        clients, y = [each.clients for each in own], [each.load.requests_per_s for each in own]
        lines.append(Line(str(settings or "running"), clients, y, style))
    height_in = max(LinePanel.height_in, 0.3 + 0.18 * len(lines))
    title = "Throughput; solid: recommended"
    yield LinePanel(title, "clients", "requests/s", lines, ticks, height_in=height_in)
    own = [each for each in closed if best and each.settings == best.settings]
    opened = [each for each in points if not each.clients]
    for title, label, some in (
        ("Latency of the recommended settings", "clients", own),
        ("Latency in open loops", "requests/s that arrive", opened),
    ):
        x = [each.clients or float(str(each.traffic).split()[0]) for each in some]
        loads, log_x = [each.load.latency_ms for each in some], x if label == "clients" else ()
        lines = [Line(f"p{p}", x, [load.get(p) for load in loads], "o-") for p in PERCENTILES]
        if some:
            yield LinePanel(title, label, "ms", lines, log_x, log_y=True)
