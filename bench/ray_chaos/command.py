"""Faults of Ray Serve under load: killed replicas, proxies and nodes, updates, hangs and shutdown.

Each response is compared with the expected detections, and each request counts once.
"""

import json
from collections.abc import Sequence

from bench.arguments import add_target, parser_of
from bench.ray_chaos.scenario import Given, Outcome
from bench.ray_chaos.scenarios import SCENARIOS
from bench.ray_chaos.traffic import as_json
from bench.report import Table, progress, write_report

COLUMNS = ("fault", "requests", "outcomes", "complete after", "longest gap", "required", "passed")


def cells(name: str, outcome: Outcome) -> tuple[str, ...]:
    """The row of the report."""
    requests = outcomes = gap = "-"
    if outcome.traffic:
        requests = str(len(outcome.traffic.outcomes))
        outcomes = ", ".join(f"{count} {kind}" for kind, count in outcome.traffic.counts.items())
        gap = f"{outcome.traffic.unanswered_s():.1f} s"
    complete = "-" if outcome.seconds is None else f"{outcome.seconds:.1f} s"
    return (
        *(name, requests, outcomes, complete, gap),
        outcome.required,
        "yes" if outcome.passed else "NO",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios; writes ray-chaos.json and .md.

    Returns:
        1 if one has failed.
    """
    parser = parser_of("ray-chaos", __doc__)
    add_target(parser, url=False)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help="scenarios")
    given = parser.parse_args(arguments)
    about = Given(given.model.resolve(), given.images)
    found: dict[str, Outcome] = {}
    for name in given.only or SCENARIOS:
        progress(name)
        found[name] = SCENARIOS[name](about)
        progress(" | ".join(cells(name, found[name])))
    data = {
        name: {
            "seconds": each.seconds,
            "passed": each.passed,
            "facts": each.facts,
            **(as_json(each.traffic) if each.traffic else {}),
        }
        for name, each in found.items()
    }
    table = Table("Faults", COLUMNS, [cells(name, each) for name, each in found.items()])
    notes = [f"{name}: {json.dumps(each.facts)}" for name, each in found.items() if each.facts]
    write_report(given.output / "ray-chaos", [table], data, notes=notes)
    return int(not all(each.passed for each in found.values()))
