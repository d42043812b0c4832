"""Hostile clients beside a normal one: what they receive, and how much they slow it down."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.arguments import add_target, parser_of, positive, whole
from bench.loadgen.client import Request
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import Load, image_requests, measure
from bench.report import Table, progress, write_report
from bench.served import SERVERS
from d2serve.client.images import find_images
from d2serve.errors import CommandError
from tests.serving.hostile.cases import Case, named
from tests.serving.hostile.wire import Address, Outcome

LOGS = Path("logs", "hostile")
NORMAL_CLIENT = ClosedLoop(1)
# Of the normal client, relative to the quiet server.
MAX_RATIO = 2.0
# A client that sends predictions as fast as it can is an ordinary second client, not a hostile one.
PREDICTION_PAUSE_S = 1.0
# The hostile clients are usually on other machines, and must not take the server's CPU time.
NICENESS = 15
WARM_UP_S = 1.0
START_TIMEOUT_S = 120


class Row(NamedTuple):
    """A kind of hostile client.

    Attributes:
        case: its row of the table of cases.
        outcome: what it received; None for an incomplete response or none in time.
        quiet: the normal client alone, directly before.
        beside: the normal client beside it.
    """

    case: Case
    outcome: Outcome | None
    quiet: Load
    beside: Load

    @property
    def is_expected(self) -> bool:
        """True if the statuses are those of the table."""
        if self.outcome is None or self.outcome.statuses not in self.case.expected:
            return False
        return bool(self.outcome.is_closed) or not self.case.closes

    @property
    def ratio(self) -> float:
        """p99 beside the hostile client, relative to the quiet server."""
        quiet, beside = self.quiet.latency_ms, self.beside.latency_ms
        return beside[99] / quiet[99] if quiet and beside else float("inf")

    def cells(self) -> tuple[str, ...]:
        """The row of the report."""
        p99 = [f"{each.latency_ms.get(99, float('nan')):.1f}" for each in (self.quiet, self.beside)]
        failed = str(self.beside.failures)
        status = self._status() + ("" if self.is_expected else " (unexpected)")
        return (self.case.name, status, *p99, f"{self.ratio:.2f}", failed)

    def _status(self) -> str:
        if self.outcome is None:
            return "none in time"
        statuses = self.outcome.statuses or ("closed",)
        if len(statuses) > 2:
            return f"{len(statuses)} x {'/'.join(map(str, sorted(set(statuses))))}"
        return ", ".join(map(str, statuses))

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        loads = {"quiet": self.quiet._asdict(), "beside": self.beside._asdict()}
        facts = {"name": self.case.name, "status": self._status(), "expected": self.is_expected}
        return {**facts, "ratio": self.ratio, **loads}


def attack(address: Address, name: str, clients: int, started: Event) -> None:
    """Be hostile clients of one kind until this process is killed."""
    os.nice(NICENESS)
    [case] = named([name])

    def repeat() -> None:
        while True:
            with suppress(OSError, AssertionError):
                case.play(address)
            time.sleep(PREDICTION_PAUSE_S if case.is_prediction else 0)

    threads = [Thread(target=repeat) for _ in range(clients)]
    for thread in threads:
        thread.start()
    started.set()


@contextmanager
def attacked(address: Address, case: Case, clients: int) -> Iterator[None]:
    """Run hostile clients in another process while the block runs.

    Raises:
        CommandError: the process has not started in time.
    """
    context = get_context("spawn")
    started = context.Event()
    process = context.Process(target=attack, args=(address, case.name, clients, started))
    process.start()
    try:
        if not started.wait(START_TIMEOUT_S):
            raise CommandError("the process of the hostile clients has not started in time")
        yield
    finally:
        process.kill()
        process.join()


def measure_case(
    case: Case, url: str, requests: Sequence[Request], seconds: float, clients: int
) -> Row:
    """Measure one kind of hostile client at a running server, which is idle."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    quiet = measure(url, requests, NORMAL_CLIENT, seconds, WARM_UP_S)
    with attacked(address, case, clients):
        beside = measure(url, requests, NORMAL_CLIENT, seconds, WARM_UP_S)
    outcome = None
    with suppress(OSError, AssertionError):
        outcome = case.play(address)
    return Row(case, outcome, quiet, beside)


def table_of(server: str, rows: Sequence[Row]) -> Table:
    """The table of one server."""
    columns = ("client", "status", "quiet p99 in ms", "p99 beside it in ms", "ratio", "failed")
    return Table(f"Hostile clients of {server}", columns, [row.cells() for row in rows])


def notes_of(server: str, rows: Sequence[Row]) -> Iterator[str]:
    """Notes on rows that are not as they should be."""
    slower = [f"{row.case.name} ({row.ratio:.2f})" for row in rows if row.ratio > MAX_RATIO]
    others = [row.case.name for row in rows if not row.is_expected]
    yield f"{server}, p99 above {MAX_RATIO:g} times the quiet one: {', '.join(slower) or 'none'}"
    yield f"{server}, unexpected statuses: {', '.join(others) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure servers of our own, or a running one; writes hostile.json and .md.

    Returns:
        1 if a status is unexpected.
    """
    parser = parser_of("hostile", __doc__)
    add_target(parser)
    names = list(SERVERS)
    parser.add_argument("--server", nargs="+", choices=names, default=names, help="without --url")
    parser.add_argument("--seconds", type=positive, default=10, help="of each measurement")
    parser.add_argument("--clients", type=whole, default=1, help="hostile clients at a time")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="kinds of clients")
    given = parser.parse_args(arguments)
    requests, cases = image_requests(find_images(given.images)[:1]), named(given.only)
    found: dict[str, list[Row]] = {}

    def measure_all(server: str, url: str) -> None:
        rows = found[server] = []
        for case in cases:
            progress(f"{server}: {case.name}")
            rows.append(measure_case(case, url, requests, given.seconds, given.clients))

    if given.url:
        measure_all(given.url, given.url)
    else:
        for name in given.server:
            with SERVERS[name](given.model, LOGS) as server:
                measure_all(name, server.url)
    tables = [table_of(*each) for each in found.items()]
    notes = [note for each in found.items() for note in notes_of(*each)]
    data = {server: [row.as_json() for row in rows] for server, rows in found.items()}
    write_report(given.output / "hostile", tables, data, notes=notes)
    return int(not all(row.is_expected for rows in found.values() for row in rows))
