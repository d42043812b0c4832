"""The report of a load test: a page that holds all its plots, and the same figures as JSON."""

import json
import platform
from datetime import datetime
from pathlib import Path

from bench.load.figures import PERCENTILES
from bench.load.points import explain
from bench.load.recommendation import Recommendation, recommend
from bench.load.report.plots import plots
from bench.load.report.results import results
from bench.load.report.sentences import nothing_to_recommend, result, summary, warnings
from bench.load.report.table import row
from bench.load.report.templates import filled_in
from bench.load.sweep import Measured, SweepPlan

TEMPLATE = Path(__file__).with_name("page.html.jinja")
PAGE, RESULTS = "report.html", "results.json"


def write_report(
    folder: Path, subject: str, measured: Measured, plan: SweepPlan, *, interrupted: bool
) -> str:
    """Writes PAGE and RESULTS, in place of those of an earlier run, and returns a summary.

    Args:
        folder: where to; made where absent.
        subject: what was put under load.
        measured: at least one point.
        plan: what was to be measured.
        interrupted: whether something is missing.
    """
    chosen = recommend(measured.points, plan.p99_ms)
    folder.mkdir(parents=True, exist_ok=True)
    page = render(subject, measured, plan, chosen, interrupted=interrupted)
    (folder / PAGE).write_text(page, encoding="utf-8")
    figures = json.dumps(results(measured, chosen, interrupted=interrupted), indent=1)
    (folder / RESULTS).write_text(figures + "\n", encoding="utf-8")
    return f"{summary(chosen, plan)}\nthe report: {folder / PAGE}"


def render(
    subject: str,
    measured: Measured,
    plan: SweepPlan,
    chosen: Recommendation | None,
    *,
    interrupted: bool,
) -> str:
    """The page; see `write_report`."""
    points = measured.points
    return filled_in(
        TEMPLATE,
        subject=subject,
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        machine=f"{points[0].cores} cores, {platform.platform()}",
        interrupted=interrupted,
        planned=plan.total,
        warnings=list(warnings(points, chosen)),
        chosen=chosen,
        block=chosen.settings.as_yaml() if chosen and chosen.settings else "",
        result=result(chosen) if chosen else "",
        limit=explain(chosen.best) if chosen else "",
        nothing=nothing_to_recommend(plan),
        plots=plots(points, chosen),
        percentiles=PERCENTILES,
        rows=[row(each, chosen) for each in points],
        failures=measured.failures,
    )
