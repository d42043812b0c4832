"""`python -m bench.overload`: several times more requests than a server can answer.

Prints what it answers then of what it can, how quickly it refuses the others, and how soon it is
itself again.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import httpx
from rich.console import Console
from rich.table import Table

from bench.load.driver import ClosedLoop, Load, OpenLoop, Target, measure
from scripts.errors import CommandError, run
from scripts.pictures import find_pictures
from scripts.torchserve import running_server

SHAPES = Path("model-store", "shapes.mar")
SAMPLES = Path("models", "shapes", "samples")
LOGS = Path("logs", "overload")
# Two batches for each of an archive's two workers: one runs while the next one gathers.
CLIENTS_AT_CAPACITY = 32
PROBES_PER_S = 10
# An answer that takes no longer than so many times what it takes on an idle server.
RECOVERED = 2.0
WATCHED_AFTERWARDS_S = 30.0


@dataclass(frozen=True)
class Probe:
    """One request of a client that always asks; seconds since 1970."""

    sent: float
    done: float
    status: int

    @property
    def took(self) -> float:
        """Seconds."""
        return self.done - self.sent


@dataclass(frozen=True)
class Overload:
    """What came of it.

    Attributes:
        before, after: at capacity, before and after the overload: a machine that others use too is
            not the same from minute to minute.
        overload: in between.
        recovered_after_s: None where it had not while it was watched.
    """

    before: Load
    overload: Load
    after: Load
    recovered_after_s: float | None

    def rows(self) -> Iterator[tuple[str, str]]:
        """What to print; capacity is the mean of before and after."""
        before, after = self.before.requests_per_s, self.after.requests_per_s
        goodput, capacity = self.overload.requests_per_s, (before + after) / 2
        asked = self.overload.requests / self.overload.seconds
        yield "capacity", f"{before:.2f} before and {after:.2f} after, requests/s"
        yield "asked", f"{asked:.2f} requests/s, {asked / capacity:.2f} of capacity"
        yield "answered", f"{goodput:.2f} requests/s, {goodput / capacity:.2f} of capacity"
        yield "answered, median", _milliseconds(self.overload.latency_ms)
        yield "refused by 503, median", _milliseconds(self.overload.refused_latency_ms)
        yield "statuses (0: no answer)", str(dict(self.overload.statuses))
        recovered = self.recovered_after_s
        told = "not within the time" if recovered is None else f"{recovered:.1f} s"
        yield "recovered after", told
        if self.overload.generator_saturated:
            yield "NOTE", "the load generator itself was too busy for these figures"


def recovery_s(probes: Sequence[Probe], idle_s: float, ended: float) -> float | None:
    """Seconds from the end of an overload until a request was first answered as on an idle server.

    Args:
        probes: in the order in which they were sent.
        idle_s: seconds that an answer takes when nothing else is asked.
        ended: when the overload ended; None is given where no probe was answered so after it.
    """
    quick = (
        probe
        for probe in probes
        if probe.sent >= ended and probe.status == 200 and probe.took <= RECOVERED * idle_s
    )
    return next((probe.done - ended for probe in quick), None)


def overload(url: str, pictures: Sequence[Path], seconds: float, factor: float) -> Overload:
    """Measures a server that runs and is idle."""
    target = Target(url, pictures)
    saturation = ClosedLoop(CLIENTS_AT_CAPACITY)
    at_capacity = partial(measure, target, saturation, seconds, warm_up_seconds=5)
    before = at_capacity()
    probes: list[Probe] = []
    idle_s = sorted(_ask(url, pictures[0]).took for _ in range(9))[4]
    with _probing(url, pictures[0], probes):
        load = measure(target, OpenLoop(factor * before.requests_per_s), seconds)
        ended = load.began_at + load.seconds
        while recovery_s(probes, idle_s, ended) is None and _is_soon_after(ended):
            time.sleep(0.1)
    return Overload(before, load, at_capacity(), recovery_s(probes, idle_s, ended))


def _is_soon_after(ended: float) -> bool:
    return time.time() < ended + WATCHED_AFTERWARDS_S


@contextmanager
def _probing(url: str, picture: Path, probes: list[Probe]) -> Iterator[None]:
    stop = Event()

    def ask_on() -> None:
        while not stop.wait(1 / PROBES_PER_S):
            probes.append(_ask(url, picture))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_on)
        try:
            yield
        finally:
            stop.set()
            asking.result()


def _ask(url: str, picture: Path) -> Probe:
    sent = time.time()
    answer = httpx.post(url, content=picture.read_bytes(), timeout=120, trust_env=False)
    return Probe(sent, time.time(), answer.status_code)


def _milliseconds(percentiles: Mapping[int, float]) -> str:
    return f"{percentiles[50]:.0f} ms" if percentiles else "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a server of our own, or one that runs."""
    options = _parser().parse_args(arguments)
    pictures = find_pictures(options.pictures)
    if options.url:
        found = overload(options.url, pictures, options.seconds, options.factor)
    elif not options.model.exists():
        raise CommandError(f"{options.model} does not exist; `make archive` builds one")
    else:
        with running_server(options.model, log_dir=LOGS, front_door=True) as server:
            url = f"{server.url}/invocations"
            found = overload(url, pictures, options.seconds, options.factor)
    table = Table(show_header=False)
    for row in found.rows():
        table.add_row(*row)
    Console().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.overload", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHAPES, help="default: %(default)s")
    parser.add_argument("--url", help="a server that runs, as in http://127.0.0.1:8080/invocations")
    parser.add_argument("--pictures", type=Path, default=SAMPLES, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--factor", type=float, default=4, help="of capacity; default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
