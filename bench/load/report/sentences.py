"""What the report says in words."""

from collections.abc import Iterator, Sequence

from bench.load.points import GENERATOR, Point, explain
from bench.load.recommendation import Recommendation, p99
from bench.load.sweep import SweepPlan

# Of fewer requests the 99th percentile is the slowest of them.
LEAST_FOR_P99 = 100
FOREIGN_SHARE = 0.15


def summary(chosen: Recommendation | None, plan: SweepPlan) -> str:
    """What the command prints at its end."""
    if chosen is None:
        return f"no recommendation: {nothing_to_recommend(plan)}"
    told = f"{result(chosen)}\n{explain(chosen.best)}"
    if chosen.settings is None:
        return told
    block = chosen.settings.as_yaml()
    return f"recommended for model-config.yaml ({chosen.rule}):\n\n{block}\n{told}"


def result(chosen: Recommendation) -> str:
    """What the recommended settings did."""
    load = chosen.best.load
    return (
        f"With {chosen.best.traffic}: {load.requests_per_s:.1f} requests/s, "
        f"p50 {load.latency_ms[50]:.0f} ms, p99 {p99(chosen.best):.0f} ms."
    )


def nothing_to_recommend(plan: SweepPlan) -> str:
    """Why there is no recommendation."""
    kept = "" if plan.p99_ms is None else f" and with a p99 of at most {plan.p99_ms:g} ms"
    return f"no closed loop was measured without a failed request{kept}."


def warnings(points: Sequence[Point], chosen: Recommendation | None) -> Iterator[str]:
    """What a reader has to know before trusting the figures."""
    busy = sum(each.limit == GENERATOR for each in points)
    if busy:
        yield (
            f"The load generator was saturated at {busy} of {len(points)} points: there the "
            "figures say what it can send, not what the server can answer."
        )
    crowded = sum(each.foreign_cores > FOREIGN_SHARE * each.cores for each in points)
    if crowded:
        yield (
            f"Something else kept over {FOREIGN_SHARE:.0%} of the machine busy at {crowded} of "
            f"{len(points)} points; on a quiet machine the figures and the recommendation differ."
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
