"""The report of a soak: a page that holds all its plots, and the same figures as JSON."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load.figures import SATURATED_PERCENT
from bench.load.report.page import PAGE, RESULTS
from bench.load.report.templates import filled_in
from bench.soak.arguments import Options
from bench.soak.latency import LEAST_FOR_P99, MINUTE_S, minute_seconds, p99_by_minute
from bench.soak.outcomes import FAULTS, Judged
from bench.soak.report.plots import plots
from bench.soak.report.windows import windows
from bench.soak.restarts import NEVER, Restart
from bench.soak.run import Soaked
from bench.soak.verdict import Criterion

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MOST_FAULTS_TOLD = 50


def write_report(options: Options, soaked: Soaked, criteria: Sequence[Criterion]) -> Path:
    """Writes PAGE and RESULTS, in place of those of an earlier run; gives the page's path."""
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.out / PAGE
    page.write_text(render(options, soaked, criteria), encoding="utf-8")
    figures = json.dumps(results(options, soaked, criteria), indent=1)
    (options.out / RESULTS).write_text(figures + "\n", encoding="utf-8")
    return page


def render(options: Options, soaked: Soaked, criteria: Sequence[Criterion]) -> str:
    """The page."""
    faults = _faults(soaked.judged)
    return filled_in(
        TEMPLATE,
        subject=options.model.name,
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        machine=f"{os.cpu_count()} cores, {platform.platform()}",
        interrupted=soaked.interrupted,
        minutes=f"{soaked.seconds / 60:.1f}",
        warnings=list(_warnings(soaked)),
        held=all(row.held for row in criteria),
        criteria=criteria,
        outcomes=_outcomes(soaked.judged),
        faults=faults[:MOST_FAULTS_TOLD],
        fault_count=len(faults),
        plots=plots(soaked),
        traffic=_traffic(options),
        least_for_p99=LEAST_FOR_P99,
        short=minute_seconds(soaked.seconds) < MINUTE_S,
        minute=f"{minute_seconds(soaked.seconds):g}",
    )


def results(options: Options, soaked: Soaked, criteria: Sequence[Criterion]) -> dict[str, Any]:
    """The figures; times in seconds from the begin of the measured time."""
    return {
        "interrupted": soaked.interrupted,
        "options": {name: str(value) for name, value in asdict(options).items()},
        "seconds": soaked.seconds,
        "generator_cpu_s": soaked.generator_cpu_s,
        "criteria": [asdict(row) for row in criteria],
        "outcomes": _outcomes(soaked.judged),
        "faults": _faults(soaked.judged),
        "p99_ms_by_minute": p99_by_minute(soaked.judged, soaked.seconds),
        "restarts": [_restart(each) for each in soaked.restarts],
        "windows": [asdict(each) for each in windows(soaked.judged, soaked.seconds)],
        "memory": [asdict(each) for each in soaked.samples],
    }


def _restart(restart: Restart) -> dict[str, float | None]:
    back = restart.back_at < NEVER
    return {
        "killed_at": restart.killed_at,
        "down_s": restart.down_s if back else None,
    }


def _warnings(soaked: Soaked) -> Iterator[str]:
    if soaked.generator_cpu_s is None or not soaked.seconds:
        return
    percent = 100 * soaked.generator_cpu_s / soaked.seconds
    if percent > SATURATED_PERCENT:
        yield (
            f"The load generator used {percent:.0f} % of the one core that it can use: latencies "
            "say what it can do, not what the server can."
        )


def _outcomes(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """How many good and hostile requests came to each end."""
    counts = Counter((each.outcome, each.hostile) for each in judged)
    names = dict.fromkeys(outcome for outcome, _ in counts)
    return [
        {"name": name, "good": counts[name, False], "hostile": counts[name, True]} for name in names
    ]


def _faults(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    return [
        {
            "second": round(each.answer.due, 2),
            "name": each.answer.name,
            "reason": each.reason,
            "id": each.answer.request_id,
        }
        for each in judged
        if each.outcome in FAULTS
    ]


def _traffic(options: Options) -> str:
    killed = (
        f"a worker was killed every {options.kill_every:g} s"
        if options.kill_every
        else "no worker was killed"
    )
    return (
        f"{options.clients} clients, each of which sends its next request when it has its answer; "
        f"{options.hostile:.0%} of the requests are hostile; {killed}."
    )
