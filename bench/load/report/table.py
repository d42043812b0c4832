"""The rows of the report's table."""

from http import HTTPStatus
from typing import Any

from bench.load.figures import PERCENTILES, Load
from bench.load.points import Point
from bench.load.recommendation import Recommendation

ABSENT = "-"


def row(point: Point, chosen: Recommendation | None) -> dict[str, Any]:
    """What the page shows of a point: texts, but for whether its settings are recommended."""
    own, load, cpu = point.settings, point.load, point.cpu
    sampled = [cpu.workers, cpu.frontend] if cpu else [None, None]
    return {
        "chosen": bool(chosen and own and own == chosen.settings),
        "settings": [own.workers, own.threads, own.batch_size, own.max_delay_ms]
        if own
        else [ABSENT] * 4,
        "traffic": str(point.traffic),
        "rate": f"{load.requests_per_s:.1f}",
        "latency": [_number(load.latency_ms.get(name), 0) for name in PERCENTILES],
        "requests": load.requests,
        "failures": _failures(load),
        "cpu": [
            _number(value, 2)
            for value in (*sampled, point.generator_cores, cpu.machine if cpu else None)
        ],
        "limit": point.limit,
    }


def _failures(load: Load) -> str:
    """How many of each status; a 200 that failed had no whole body."""
    kinds = {status: count for status, count in load.statuses.items() if status != HTTPStatus.OK}
    told = {str(status or "no answer"): count for status, count in kinds.items()}
    told["cut off"] = load.failures - sum(kinds.values())
    return ", ".join(f"{count} x {name}" for name, count in told.items() if count)


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"
