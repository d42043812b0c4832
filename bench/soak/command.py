"""`make soak`: a server under mixed traffic and faults, with every response checked. Ctrl-C ends
the soak early, with a report of what there is."""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.arguments import INTERRUPTED, add_target, parser_of, positive, seconds, share, whole
from bench.loadgen.client import KEPT, Request
from bench.loadgen.generator import TIMEOUT_S, ClosedLoop, Plan, Recording, generate
from bench.loadgen.load import SATURATED_PERCENT, request_once
from bench.plots import Line, LinePanel
from bench.processes import ROLES, Snapshot, sampling
from bench.report import Table, progress, write_report
from bench.soak.checks import checks, growths, in_windows, minute_s, p99_by_minute, percentile_ms
from bench.soak.outcomes import FAULTS, NEVER, RIGHT, Checked, Restart, check_records, killing
from bench.soak.servers import SERVERS, Target
from bench.soak.traffic import Kind, good_kinds, groups_of, hostile_kinds
from d2serve.client.images import find_images
from d2serve.errors import CommandError

LOGS = Path("logs", "soak")
WARM_UP_S, EVERY_S = 10.0, 1.0
# Windows of the plot, and printed faults.
WINDOWS, MAX_FAULTS = 60, 50


class Soaked(NamedTuple):
    """Requests, restarts and snapshots of a window; times in seconds from its start."""

    seconds: float
    checked: Sequence[Checked]
    restarts: Sequence[Restart] = ()
    snapshots: Sequence[Snapshot] = ()
    kills: int = 0
    generator_cpu_s: float | None = None
    interrupted: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak and report; 1 if a check failed, 130 after Ctrl-C."""
    given, kills = parse(arguments)
    soaked = soak(given, kills)
    if not soaked.checked and not soaked.interrupted:
        raise CommandError(f"no request was measured; the server's logs: {LOGS}")
    passed = not soaked.checked or report(given.output, soaked)
    return INTERRUPTED if soaked.interrupted else int(not passed)


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[float]]:
    """Read the command line; also the moments of the kills, all before the very end."""
    parser = parser_of("soak", __doc__, Path("out", "soak"))
    add_target(parser, url=False)
    choices = list(SERVERS)
    parser.add_argument("--server", choices=choices, default=choices[0], help="that serves it")
    parser.add_argument("--minutes", type=positive, default=30, help="of the measured window")
    parser.add_argument("--clients", type=whole, default=32, help="of the closed loop")
    parser.add_argument("--hostile", type=share, default=0.1, help="share of the requests")
    every = "seconds between killed workers; 0: none"
    parser.add_argument("--kill-every", type=seconds, default=300, help=every)
    given = parser.parse_args(arguments)
    count = int(60 * given.minutes / given.kill_every - 1e-6) if given.kill_every else 0
    return given, [given.kill_every * (index + 1) for index in range(count)]


def soak(given: argparse.Namespace, kills: Sequence[float]) -> Soaked:
    """Serve the model, send the traffic and check the responses."""
    images = find_images(given.images)
    progress(f"starting the server: {given.server}")
    with SERVERS[given.server](given.model, LOGS) as server:
        url, window_s = f"{server.url}/invocations", 60 * given.minutes

        def ask(request: Request) -> bytes:
            return request_once(url, replace(request, behaviour=KEPT))[0].body

        progress("requesting every response once, one at a time")
        kinds = [*good_kinds(images, server.model_name, ask), *hostile_kinds(images[0])]
        ends = time.strftime("%H:%M:%S", time.localtime(time.time() + window_s + WARM_UP_S))
        progress(f"{given.clients} clients send until {ends}; Ctrl-C ends the soak earlier")
        traffic, groups = ClosedLoop(given.clients), groups_of(kinds, given.hostile)
        with tempfile.TemporaryDirectory(prefix="d2serve-soak-") as bodies:
            limits = (window_s, WARM_UP_S, 2 * TIMEOUT_S, Path(bodies))
            return send(server, Plan(url, groups, traffic, *limits), kinds, kills)


def send(server: Target, plan: Plan, kinds: Sequence[Kind], kills: Sequence[float]) -> Soaked:
    """Send the traffic of a plan with the kills meanwhile, and check the responses."""
    recording, interrupted = Recording(), False
    moments = [plan.warm_up_s + moment for moment in kills]
    with (
        sampling(server.members, EVERY_S) as snapshots,
        killing(server.ready, moments) as restarts,
    ):
        try:
            generate(plan, recording)
        except KeyboardInterrupt:
            interrupted = True
    start, records = recording.began_at, recording.records
    shifted = [Restart(each.killed_at - start, each.back_at - start) for each in restarts]
    moved = [replace(each, moment=each.moment - start) for each in snapshots]
    last = max((record.done for record in records), default=0.0)
    window_s = max(0.0, min(plan.seconds, last)) if interrupted else plan.seconds
    assert plan.bodies
    checked = check_records(
        records,
        {kind.name: kind for kind in kinds},
        shifted,
        plan.bodies,
        worker_has_connections=server.worker_has_connections,
    )
    sampled = [each for each in moved if each.moment >= 0]
    killed = sum(moment < window_s for moment in kills)
    return Soaked(window_s, checked, shifted, sampled, killed, recording.cpu_s, interrupted)


def report(folder: Path, soaked: Soaked) -> bool:
    """Write soak.json, .md and .png; returns whether all checks passed."""
    growth = growths(soaked.snapshots, soaked.restarts)
    facts = (soaked.checked, soaked.restarts, soaked.kills, growth, soaked.seconds)
    rows, outcomes = list(checks(*facts)), dict[str, dict[str, int]]()
    for each in soaked.checked:
        own = outcomes.setdefault(each.outcome, {"good": 0, "hostile": 0})
        own["hostile" if each.hostile else "good"] += 1
    columns = ("second", "request", "fault", "id")
    faults = [
        dict(zip(columns, (round(r.due, 2), r.name, each.reason, r.request_id), strict=True))
        for each in soaked.checked
        if (r := each.record) and each.outcome in FAULTS
    ]
    memory = [[each.moment, *map(each.resident, ROLES)] for each in soaked.snapshots]
    data: dict[str, Any] = {
        "interrupted": soaked.interrupted,
        "seconds": soaked.seconds,
        "checks": [row._asdict() for row in rows],
        "outcomes": outcomes,
        "faults": faults,
        "p99_ms_by_minute": p99_by_minute(soaked.checked, soaked.seconds),
        "restarts": [each._asdict() for each in soaked.restarts if each.back_at < NEVER],
        "memory": {"columns": ["moment", *ROLES], "rows": memory},
    }
    cells = [(*row[:3], "yes" if row.passed else "NO") for row in rows]
    tables = [Table("Checks", ("check", "required", "measured", "passed"), cells)]
    numbers = [(name, *map(str, own.values())) for name, own in outcomes.items()]
    tables.append(Table("Requests", ("outcome", "good", "hostile"), numbers))
    length = minute_s(soaked.seconds)
    notes = [f"p99 is of right responses outside the restarts; a minute is {length:g} s here."]
    percent = 100 * (soaked.generator_cpu_s or 0.0) / max(soaked.seconds, 1e-9)
    if percent > SATURATED_PERCENT:
        notes.append(f"The load generator used {percent:.0f} % of its core, as latencies show.")
    notes += [f"FAULT: {each}" for each in faults[:MAX_FAULTS]]
    if soaked.interrupted:
        notes.append(f"Interrupted after {soaked.seconds / 60:.1f} minutes.")
    write_report(folder / "soak", tables, data, list(_panels(soaked)), notes)
    return all(row.passed for row in rows)


def _panels(soaked: Soaked) -> Iterator[LinePanel]:
    length = max(soaked.seconds, 1.0) / WINDOWS
    windows = in_windows(soaked.checked, length, WINDOWS)
    x = [(index + 0.5) * length / 60 for index in range(WINDOWS)]
    spans = ((each.killed_at, min(each.back_at, soaked.seconds)) for each in soaked.restarts)
    shaded = [(start / 60, end / 60) for start, end in spans]
    panel, lines = partial(LinePanel, x_label="minutes", shaded=shaded), []
    for name in dict.fromkeys(each.outcome for each in soaked.checked):
        counts = [sum(each.outcome == name for each in own) for own in windows]
        lines.append(Line(name, x, [count / length for count in counts]))
    yield panel("Requests by outcome; restarts are shaded", y_label="requests/s", lines=lines)
    right = [[each for each in own if each.outcome == RIGHT] for own in windows]
    lines = [Line(f"p{p}", x, [percentile_ms(own, p) for own in right], ".-") for p in (50, 99)]
    minutes = p99_by_minute(soaked.checked, soaked.seconds)
    middles = [(index + 0.5) * minute_s(soaked.seconds) / 60 for index in range(len(minutes))]
    lines.append(Line("p99 of a minute, checked", middles, minutes, "D"))
    yield panel("Latency of right responses", y_label="ms", lines=lines, log_y=True)
    x, lines = [each.moment / 60 for each in soaked.snapshots], []
    for role in (None, *ROLES):
        resident = [each.resident(role) / 1e6 for each in soaked.snapshots]
        lines.append(Line(role or "all", x, resident))
    yield panel("Resident memory", y_label="MB", lines=lines)
