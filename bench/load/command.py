"""`make loadtest`: a server under load, over batch size x delay x workers x clients.

Recommends settings. Ctrl-C ends the test early, with a report of the points so far.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path

from bench.arguments import INTERRUPTED, add_target, positive, whole
from bench.http.generator import OpenLoop
from bench.http.load import PERCENTILES
from bench.load.points import Point, Recommendation, recommend, summary, warnings
from bench.load.settings import grid, unpacked
from bench.load.sweep import Measured, Opener, SweepPlan, own_server, running_already, sweep
from bench.machine import describe_machine
from bench.plots import Line, LinePanel
from bench.report import Table, end_progress, write_report
from d2serve.client.transport import find_pictures
from d2serve.errors import CommandError

LOGS = Path("logs", "loadtest")
OUTPUT = Path("out", "loadtest")
# Of full and of quick tests, and help.
PRESETS = {
    "batch_sizes": ((1, 4, 16), (8,), whole, "batchSize"),
    "delays_ms": ((5, 20), (20,), whole, "maxBatchDelay"),
    "workers": ((1, 2, 4), (1,), whole, "minWorkers and maxWorkers"),
    "clients": ((1, 4, 16, 32), (1, 8), whole, "of the closed loops"),
    "fractions": ((0.5, 0.8, 0.95, 1.2), (0.5, 1.2), positive, "of the best rate, in open loops"),
}
SECONDS, QUICK_SECONDS = (4.0, 1.0), (1.0, 0.5)
COLUMNS = (
    *("settings", "traffic", "requests/s", *(f"p{percent} ms" for percent in PERCENTILES)),
    *("requests", "failed", "CPU: workers", "frontend", "generator", "machine", "saturated"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep and report; 1 if a setting could not be served, 130 after Ctrl-C."""
    given = _parser().parse_args(arguments)
    plan, measured, interrupted = plan_of(given), Measured(), False
    try:
        with _opener(given) as opener:
            sweep(plan, opener, measured)
    except KeyboardInterrupt:
        interrupted = True
    end_progress()
    if not measured.points and not interrupted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in measured.failures.items())
        raise CommandError(f"no point could be measured: {reasons}; the server's logs: {LOGS}")
    if measured.points:
        report(given.out, measured, plan, interrupted=interrupted)
    return INTERRUPTED if interrupted else int(bool(measured.failures))


def plan_of(given: argparse.Namespace) -> SweepPlan:
    """The plan of parsed arguments; what is given overrides the preset."""
    value = {
        name: getattr(given, name) or preset[1 if given.quick else 0]
        for name, preset in PRESETS.items()
    }
    seconds, warm_up_s = QUICK_SECONDS if given.quick else SECONDS
    settings = grid(value["batch_sizes"], value["delays_ms"], value["workers"], given.threads)
    return SweepPlan(
        settings=[None] if given.url else settings,
        clients=sorted(set(value["clients"])),
        fractions=value["fractions"],
        seconds=given.seconds or seconds,
        warm_up_s=given.warm_up or warm_up_s,
        p99_ms=given.p99_ms,
    )


def report(folder: Path, measured: Measured, plan: SweepPlan, *, interrupted: bool) -> None:
    """Write loadtest.json, .md and .png."""
    points = measured.points
    chosen = recommend(points, plan.p99_ms)
    notes = [f"not measured: {name}: {reason}" for name, reason in measured.failures.items()]
    if interrupted:
        notes.append(f"Interrupted: {len(points)} of {plan.total} points were measured.")
    recommended = None
    if chosen:
        settings = chosen.settings and chosen.settings.as_config()
        recommended = {"settings": settings, "rule": chosen.rule, "limit": chosen.best.limit}
    data = {
        "interrupted": interrupted,
        "recommended": recommended,
        "points": [_as_json(each) for each in points],
        "failures": measured.failures,
    }
    table = Table("Closed and open loops; CPU in busy cores", COLUMNS, [_row(each) for each in points])
    notes = [*summary(chosen, plan.p99_ms), *warnings(points, chosen), *notes]
    panels = list(_panels(points, chosen))
    write_report(folder / "loadtest", describe_machine(), [table], notes, data, panels)


def _as_json(point: Point) -> dict[str, object]:
    content = asdict(point)
    content["load"].pop("latencies_s")
    loop = {"loop": type(point.traffic).__name__, **asdict(point.traffic)}
    return {**content, "traffic": loop, "limit": point.limit}


def _row(point: Point) -> tuple[str, ...]:
    load, cpu = point.load, point.cpu
    kinds = {str(code or "no response"): count for code, count in load.statuses.items()}
    complete = kinds.pop(str(HTTPStatus.OK.value), 0)
    kinds["incomplete"] = load.failures - (load.requests - complete)
    used = (cpu.workers, cpu.frontend) if cpu else (None, None)
    return (
        *(str(point.settings or "-"), str(point.traffic), f"{load.requests_per_s:.1f}"),
        *(_number(load.latency_ms.get(percent), 0) for percent in PERCENTILES),
        str(load.requests),
        ", ".join(f"{count} x {kind}" for kind, count in kinds.items() if count),
        *(_number(each, 2) for each in (*used, point.generator_cores, cpu and cpu.machine)),
        point.limit,
    )


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _panels(points: Sequence[Point], chosen: Recommendation | None) -> Iterator[LinePanel]:
    closed = sorted((each for each in points if each.clients), key=lambda each: each.clients)
    ticks = [each.clients for each in closed]
    lines = []
    for settings in dict.fromkeys(each.settings for each in closed):
        own = [each for each in closed if each.settings == settings]
        style = "o-" if chosen and settings == chosen.settings else ".--"
        rates = [each.load.requests_per_s for each in own]
        lines.append(Line(str(settings or "running"), [each.clients for each in own], rates, style))
    title = "Throughput over clients; solid: recommended"
    height_in = max(LinePanel.height_in, 0.3 + 0.18 * len(lines))
    label = "clients"
    yield LinePanel(title, label, "requests/s", lines, ticks, height_in=height_in)
    if not chosen:
        return
    own = [each for each in closed if each.settings == chosen.settings]
    clients = [each.clients for each in own]
    title = f"Latency over clients: {chosen.settings or 'the running server'}"
    yield LinePanel(title, label, "ms", _percentiles(own, clients), clients, log_y=True)
    if all(each.cpu for each in own):
        uses = [each.cpu for each in own if each.cpu]
        cpu = {"machine": [use.machine for use in uses], "workers": [use.workers for use in uses]}
        cpu["frontend"] = [use.frontend for use in uses]
        cpu["generator"] = [each.generator_cores for each in own]
        lines = [Line(name, clients, values, "o-") for name, values in cpu.items()]
        levels = {"all cores": float(own[0].cores)}
        yield LinePanel("CPU over clients", label, "busy cores", lines, clients, levels=levels)
    opened = [(each.traffic, each) for each in points if isinstance(each.traffic, OpenLoop)]
    if opened:
        rates = [traffic.requests_per_s for traffic, _ in opened]
        lines = _percentiles([each for _, each in opened], rates)
        title = "Latency over the rate of an open loop"
        yield LinePanel(title, "requests/s that arrive", "ms", lines, log_y=True)


def _percentiles(points: Sequence[Point], x: Sequence[float]) -> list[Line]:
    return [
        Line(f"p{percent}", x, [each.load.latency_ms.get(percent) for each in points], "o-")
        for percent in PERCENTILES
    ]


@contextmanager
def _opener(given: argparse.Namespace) -> Iterator[Opener]:
    images = find_pictures(given.images)
    if given.url:
        yield running_already(given.url, images)
        return
    with unpacked(given.model) as model:
        yield own_server(model, images, LOGS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench load", description=__doc__)
    add_target(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one setting, half a minute")
    parser.add_argument("--p99-ms", type=positive, help="limit on the p99 of a recommended setting")
    for name, (default, _, kind, text) in PRESETS.items():
        text += f"; default: {' '.join(f'{value:g}' for value in default)}"
        parser.add_argument(
            "--" + name.replace("_", "-"), type=kind, nargs="+", metavar="N", help=text
        )
    parser.add_argument("--threads", type=whole, help="per worker; default: cores / workers")
    parser.add_argument("--seconds", type=positive, help=f"per point; default: {SECONDS[0]:g}")
    parser.add_argument("--warm-up", type=positive, help=f"seconds; default: {SECONDS[1]:g}")
    return parser
