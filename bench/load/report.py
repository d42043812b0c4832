"""The report of a load test: a page that holds all its plots, and the same figures as JSON."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from bench.load.figures import PERCENTILES
from bench.load.plots import plots
from bench.load.points import GENERATOR, Point, explain
from bench.load.recommendation import Recommendation, p99, recommend
from bench.load.sweep import Measured, Plan

TEMPLATE = Path(__file__).with_name("report.html.jinja")
REPORT, RESULTS = "report.html", "results.json"
LEAST_FOR_P99 = 100


@dataclass(frozen=True)
class Report:
    """A report that has been written: its page, and what to print."""

    file: Path
    summary: str


def write_report(folder: Path, measured: Measured, plan: Plan, *, interrupted: bool) -> Report:
    """Writes report.html and results.json, in place of those of an earlier run.

    Args:
        folder: where to; made where absent.
        measured: at least one point.
        plan: what was to be measured.
        interrupted: whether something is missing.
    """
    chosen = recommend(measured.points, plan.p99_ms)
    folder.mkdir(parents=True, exist_ok=True)
    page = _page(measured, plan, chosen, interrupted)
    (folder / REPORT).write_text(page, encoding="utf-8")
    results = json.dumps(_results(measured, chosen, interrupted), indent=1)
    (folder / RESULTS).write_text(results + "\n", encoding="utf-8")
    return Report(folder / REPORT, _summary(chosen, plan))


def _page(measured: Measured, plan: Plan, chosen: Recommendation | None, interrupted: bool) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    points = measured.points
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        machine=f"{points[0].cores} cores, {platform.platform()}",
        interrupted=interrupted,
        planned=plan.total,
        warnings=list(_warnings(points, chosen)),
        chosen=chosen,
        block=chosen.settings.as_yaml() if chosen and chosen.settings else "",
        result=_result(chosen) if chosen else "",
        limit=explain(chosen.best) if chosen else "",
        nothing=_nothing(plan),
        plots=plots(points, chosen),
        percentiles=PERCENTILES,
        rows=[_row(each, chosen) for each in points],
        failures=measured.failures,
    )


def _summary(chosen: Recommendation | None, plan: Plan) -> str:
    if chosen is None:
        return f"no recommendation: {_nothing(plan)}"
    told = f"{_result(chosen)}\n{explain(chosen.best)}"
    if chosen.settings is None:
        return told
    return (
        f"recommended for model-config.yaml ({chosen.rule}):\n\n{chosen.settings.as_yaml()}\n{told}"
    )


def _result(chosen: Recommendation) -> str:
    load = chosen.best.load
    return (
        f"With {chosen.best.traffic}: {load.requests_per_s:.1f} requests/s, "
        f"p50 {load.latency_ms[50]:.0f} ms, p99 {p99(chosen.best):.0f} ms."
    )


def _nothing(plan: Plan) -> str:
    kept = "" if plan.p99_ms is None else f" with a p99 of at most {plan.p99_ms:g} ms"
    return f"in a closed loop there was no point without failures{kept}."


def _warnings(points: list[Point], chosen: Recommendation | None) -> Iterator[str]:
    busy = [each for each in points if each.limit == GENERATOR]
    if busy:
        yield (
            f"The load generator was saturated at {len(busy)} of {len(points)} points: there the "
            "figures say what it can send, not what the server can answer."
        )
    failed = sum(each.load.failures for each in points)
    if failed:
        sent = sum(each.load.requests for each in points)
        yield f"{failed} of {sent} requests failed; the table says where, and with which status."
    if chosen and chosen.best.load.requests < LEAST_FOR_P99:
        yield (
            f"The recommendation rests on {chosen.best.load.requests} requests; measure longer "
            "(--seconds) for a p99 that can be trusted."
        )


def _row(point: Point, chosen: Recommendation | None) -> dict[str, Any]:
    own, load, cpu = point.settings, point.load, point.cpu
    refused = [f"{name or 'no answer'}: {count}" for name, count in load.statuses.items()]
    sampled = [cpu.workers, cpu.frontend] if cpu else [None, None]
    return {
        "chosen": bool(chosen and own and own == chosen.settings),
        "settings": [own.workers, own.threads, own.batch_size, own.max_delay_ms]
        if own
        else ["-"] * 4,
        "traffic": str(point.traffic),
        "rate": f"{load.requests_per_s:.1f}",
        "latency": [_number(load.latency_ms.get(name), 0) for name in PERCENTILES],
        "requests": load.requests,
        "failures": f"{load.failures} ({', '.join(refused)})" if load.failures else "",
        "cpu": [
            _number(value, 2)
            for value in (*sampled, point.generator_cores, cpu.machine if cpu else None)
        ],
        "limit": point.limit,
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _results(
    measured: Measured, chosen: Recommendation | None, interrupted: bool
) -> dict[str, Any]:
    return {
        "interrupted": interrupted,
        "recommended": chosen
        and {
            "settings": chosen.settings and chosen.settings.as_config(),
            "rule": chosen.rule,
            "saturates": explain(chosen.best),
        },
        "points": [
            {
                **asdict(each),
                "traffic": {"loop": type(each.traffic).__name__, **asdict(each.traffic)},
                "limit": each.limit,
            }
            for each in measured.points
        ],
        "failures": measured.failures,
    }
