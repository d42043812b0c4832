"""`make soak`: a server under mixed traffic and faults, for a long time.

Writes a report with plots. Ctrl-C ends it early, with a report of what there was until then.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.load.__main__ import INTERRUPTED
from bench.progress import progress
from bench.soak.arguments import parse
from bench.soak.growth import growths
from bench.soak.report.page import write_report
from bench.soak.run import LOGS, soak
from bench.soak.verdict import Criterion, verdict
from scripts.errors import CommandError, run
from scripts.sending import result_console


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak and report; 1 if a criterion did not hold, 130 after Ctrl-C."""
    options = parse(arguments)
    with progress() as tell:
        soaked = soak(options, lambda text: tell(text, 0.0))
    if not soaked.judged:
        if soaked.interrupted:
            return INTERRUPTED
        raise CommandError(f"nothing was measured; the logs of the server are in {LOGS}")
    kills = sum(moment < soaked.seconds for moment in options.kills)
    growth = growths(soaked.samples, soaked.restarts)
    criteria = verdict(soaked.judged, soaked.restarts, kills, growth, soaked.seconds)
    _print(result_console(), criteria)
    print(f"the report: {write_report(options, soaked, criteria)}")
    if soaked.interrupted:
        return INTERRUPTED
    return int(not all(row.held for row in criteria))


def _print(console: Console, criteria: Sequence[Criterion]) -> None:
    table = Table("criterion", "wanted", "measured", "held")
    for row in criteria:
        table.add_row(row.name, row.wanted, row.measured, "yes" if row.held else "NO")
    console.print(table)


if __name__ == "__main__":
    run(main)
