"""The figures of a load test as JSON."""

from dataclasses import asdict
from typing import Any

from bench.load.points import Point, explain
from bench.load.recommendation import Recommendation
from bench.load.sweep import Measured


def results(
    measured: Measured, chosen: Recommendation | None, *, interrupted: bool
) -> dict[str, Any]:
    """All that was measured, and what is recommended."""
    return {
        "interrupted": interrupted,
        "recommended": None if chosen is None else _recommended(chosen),
        "points": [_point(each) for each in measured.points],
        "failures": measured.failures,
    }


def _recommended(chosen: Recommendation) -> dict[str, Any]:
    return {
        "settings": chosen.settings and chosen.settings.as_config(),
        "rule": chosen.rule,
        "saturates": explain(chosen.best),
    }


def _point(point: Point) -> dict[str, Any]:
    loop = {"loop": type(point.traffic).__name__, **asdict(point.traffic)}
    return {**asdict(point), "traffic": loop, "limit": point.limit}
