"""Hostile clients beside a normal one: what they receive, and how much they slow it down.

The normal client is measured alone and beside the hostile ones alternately.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.arguments import add_target, parser_of, positive, whole
from bench.attackers import attacked
from bench.loadgen.client import Group, Request
from bench.loadgen.generator import ClosedLoop, Plan, Recording, generate
from bench.loadgen.load import Load, image_requests, summarise
from bench.report import Table, progress, write_report
from bench.served import SERVERS
from d2serve.client.images import find_images
from tests.serving.hostile.cases import CASES, Case, named
from tests.serving.hostile.wire import Address, Outcome

LOGS = Path("logs", "hostile")
NORMAL_CLIENT = ClosedLoop(1)
# Of the normal client, relative to the quiet server.
MAX_RATIO = 2.0
WARM_UP_S = 0.5
MAIN_KINDS = (
    "bare LF line ends",
    "chunks of 1 byte at full speed",
    "chunk that is longer than declared",
    "chunk that ends with LF",
    "head byte by byte",
    "2,000 pipelined requests",
    "forged x-d2serve-*",
    "slow read",
    "slow write",
    "half-closed",
    "HTTP/2 preface",
    "CONNECT",
    "absolute target",
    "https to a plain port",
)


class Row(NamedTuple):
    """A kind of hostile client.

    Attributes:
        case: its row of the table of cases.
        outcome: what it received; None for an incomplete response or none in time.
        quiet: the normal client alone.
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

    def cells(self, server: str) -> tuple[str, ...]:
        """The row of the report."""
        p99 = [f"{each.latency_ms.get(99, float('nan')):.1f}" for each in (self.quiet, self.beside)]
        failed = str(self.beside.failures)
        status = self._status() + ("" if self.is_expected else " (unexpected)")
        return (self.case.name, server, status, *p99, f"{self.ratio:.2f}", failed)

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


class Measurement(NamedTuple):
    """The measurement of one kind of hostile client.

    Attributes:
        requests: requests of the normal client.
        seconds: length of each window.
        rounds: number of windows alone, and of those beside the hostile clients.
        clients: number of hostile clients.
    """

    requests: Sequence[Request]
    seconds: float
    rounds: int
    clients: int

    def measure(self, case: Case, url: str) -> Row:
        """Measure one kind at a running server, which is idle."""
        address = address_of(url)
        quiet, beside = [], []
        for _ in range(self.rounds):
            quiet.append(self._window(url))
            with attacked(address, case, self.clients):
                beside.append(self._window(url))
        outcome = None
        with suppress(OSError, AssertionError):
            outcome = case.play(address)
        return Row(case, outcome, *(pooled(each, self.seconds) for each in (quiet, beside)))

    def _window(self, url: str) -> Recording:
        recording = Recording()
        groups = [Group(1.0, self.requests)]
        generate(Plan(url, groups, NORMAL_CLIENT, self.seconds, WARM_UP_S), recording)
        return recording


def address_of(url: str) -> Address:
    """Host and port of a server."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def pooled(windows: Sequence[Recording], seconds: float) -> Load:
    """The figures of windows of equal length, as if they were one."""
    records = [
        each._replace(due=each.due + number * seconds, done=each.done + number * seconds)
        for number, window in enumerate(windows)
        for each in window.records
        if 0 <= each.due < seconds
    ]
    cpu_s = sum(each.cpu_s or 0.0 for each in windows)
    return summarise(Recording(records, windows[0].began_at, cpu_s), seconds * len(windows))


def table_of(found: Mapping[str, Sequence[Row]]) -> Table:
    """The table of all servers, by the names of the servers."""
    columns = ("client", "server", "status", "quiet p99 in ms", "p99 beside it in ms", "ratio")
    cells = [
        row.cells(server)
        for rows in zip(*found.values(), strict=True)
        for server, row in zip(found, rows, strict=True)
    ]
    return Table("A normal client beside hostile ones", (*columns, "failed"), cells)


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
    parser.add_argument("--seconds", type=positive, default=2.5, help="of each window")
    parser.add_argument("--rounds", type=whole, default=2, help="windows alone, and beside")
    parser.add_argument("--clients", type=whole, default=1, help="hostile clients at a time")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--only", nargs="+", metavar="NAME", default=MAIN_KINDS, help="kinds")
    kinds.add_argument("--all", action="store_true", help=f"all {len(CASES)} kinds")
    given = parser.parse_args(arguments)
    cases = named([] if given.all else given.only)
    requests = image_requests(find_images(given.images)[:1])
    measurement = Measurement(requests, given.seconds, given.rounds, given.clients)
    found: dict[str, list[Row]] = {}

    def measure_all(server: str, url: str) -> None:
        rows = found[server] = []
        for case in cases:
            progress(f"{server}: {case.name}")
            rows.append(measurement.measure(case, url))

    if given.url:
        measure_all(given.url, given.url)
    else:
        for name in given.server:
            with SERVERS[name](given.model, LOGS) as server:
                measure_all(name, server.url)
    notes = [note for each in found.items() for note in notes_of(*each)]
    data = {server: [row.as_json() for row in rows] for server, rows in found.items()}
    write_report(given.output / "hostile", [table_of(found)], data, notes=notes)
    return int(not all(row.is_expected for rows in found.values() for row in rows))
