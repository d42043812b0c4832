"""Kills workers now and then, and decides which outcome each request had."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.loadgen.generator import Record
from bench.processes import in_background
from bench.soak.expected import error_code
from bench.soak.traffic import Kind

RIGHT, REFUSED, DISCONNECTED = "right", "refused as required", "disconnected by the client"
# Requests that a killed worker takes with it: with an error of the contract, or without a response
# where the worker itself has the connections.
FAILED_BY_RESTART = "failed within a restart"
WRONG, NOT_REFUSED = "wrong", "not refused as required"
FAILED, LOST = "5xx outside the restarts", "lost"
FAULTS = (WRONG, NOT_REFUSED, FAILED, LOST)
POLL_S = 0.1
# The run ended before the worker was back.
NEVER = float("inf")


class Restart(NamedTuple):
    """A killed worker; seconds since 1970 or since the start of a window."""

    killed_at: float
    back_at: float

    def overlaps(self, start: float, end: float) -> bool:
        """Return whether an interval overlaps with the restart."""
        return start <= self.back_at and end >= self.killed_at


@contextmanager
def killing(ready: Callable[[], set[int]], moments: Sequence[float]) -> Iterator[list[Restart]]:
    """Kill one of the `ready` workers at each moment, in ascending seconds from now, while the
    block runs. Yields the restarts so far."""
    restarts, start = list[Restart](), time.monotonic()

    def kill_all(done: threading.Event) -> None:
        for moment in moments:
            if done.wait(max(0.0, start + moment - time.monotonic())):
                return
            while not (victims := ready()):
                if done.wait(POLL_S):
                    return
            restarts.append(_kill_one(victims, ready, done))

    with in_background(kill_all):
        yield restarts


def _kill_one(victims: set[int], ready: Callable[[], set[int]], done: threading.Event) -> Restart:
    killed_at, victim = time.time(), min(victims)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(victim).kill()
    # As many as before, without the dead one.
    while len(now := ready() - {victim}) < len(victims) or not now:
        if done.wait(POLL_S):
            return Restart(killed_at, NEVER)
    return Restart(killed_at, time.time())


class Checked(NamedTuple):
    """A request with its outcome, the reason of a fault, and whether it overlaps with a restart."""

    record: Record
    hostile: bool
    outcome: str
    reason: str
    restart: bool


def check_records(
    records: Sequence[Record],
    kinds: Mapping[str, Kind],
    restarts: Sequence[Restart],
    bodies: Path,
    *,
    worker_has_connections: bool = False,
) -> list[Checked]:
    """Check all requests, whose kinds are given by name; `bodies` has each body by digest."""

    @cache
    def fault(name: str, digest: str) -> str:
        expected = kinds[name].expected
        return expected.fault((bodies / digest).read_bytes()) if expected else ""

    @cache
    def code(digest: str) -> str:
        return error_code((bodies / digest).read_bytes())

    def check(record: Record) -> Checked:
        within = any(restart.overlaps(record.due, record.done) for restart in restarts)
        kind = kinds[record.name]
        if worker_has_connections and within and kind.expected and not record.whole:
            return Checked(record, kind.hostile, FAILED_BY_RESTART, "no response", within)
        return Checked(record, kind.hostile, *_outcome(record, kind, within, fault, code), within)

    return list(map(check, records))


def _outcome(
    record: Record,
    kind: Kind,
    within_restart: bool,
    fault: Callable[[str, str], str],
    code: Callable[[str], str],
) -> tuple[str, str]:
    if kind.expected is None:
        return DISCONNECTED, ""
    if not record.whole:
        return LOST, f"{record.status}, incomplete" if record.status else "no response"
    if record.status >= 500:
        found = code(record.digest)
        reason = f"a {record.status} {found or 'without an error of the contract'}"
        return FAILED_BY_RESTART if within_restart and found else FAILED, reason
    reason = f"a {record.status}, expected a {kind.expected.status}"
    if record.status == kind.expected.status:
        reason = fault(record.name, record.digest)
    if reason:
        return NOT_REFUSED if kind.hostile else WRONG, reason
    return REFUSED if kind.hostile else RIGHT, ""


def doubled(records: Sequence[Record]) -> int:
    """Responses beyond one per request: surplus bytes, and repeated ids of the server."""
    ids = [record.request_id for record in records if record.request_id]
    return sum(record.surplus > 0 for record in records) + len(ids) - len(set(ids))
