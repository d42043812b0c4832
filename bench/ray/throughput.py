"""Requests/s of Ray Serve with each of its proxies beside the ASGI server and the bare loop, all
in one environment, with bodies of several sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.baselines.command import TIMEOUT_S, Figures
from bench.comparison import Series, alternate, ratio
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure, request_once
from bench.plots import RatioPanel
from bench.ray.bodies import size_name
from bench.report import Table, progress
from bench.served import ASGI, IN_RAY_ENVIRONMENT, RAY, RAY_PROXY
from bench.worker_process import Worker, running_worker, unpack
from d2serve.errors import CommandError
from tests.serving.ray_server import RAY_PYTHON

BARE_LOOP = "bare loop"
# The first is that of the ratios.
NAMES = {ASGI: "ASGI server", RAY: "Ray Serve, HAProxy", RAY_PROXY: "Ray Serve, its own proxy"}
COLUMNS = ("body", "implementation", "requests/s", "/ ASGI server", "p50 ms", "p99 ms")
TITLE = "Medians (quartiles) of alternating rounds; ratios of requests/s are computed per round"
# Measures with clients, for seconds, after others to warm up.
Measure = Callable[[int, float, float], Figures]


class Effort(NamedTuple):
    """Size of a run: clients, seconds of a measurement and of the warm-up before, and rounds."""

    clients: int
    seconds: float
    warm_up_s: float
    rounds: int


class Case(NamedTuple):
    """Figures by implementation, one per round, with bodies of `size_bytes`."""

    size_bytes: int
    figures: Mapping[str, Sequence[Figures]]

    def series(self, name: str, field: str) -> Series:
        """One figure of an implementation."""
        return Series(name, tuple(getattr(each, field) for each in self.figures[name]))

    def ratio(self, name: str) -> Series:
        """Requests/s of an implementation, relative to the ASGI server's."""
        first, *_ = self.figures
        rates = (self.series(each, "requests_per_s") for each in (name, first))
        return ratio(*rates)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Rows of the table."""
        for name in self.figures:
            rate, p50, p99 = (self.series(name, field) for field in Figures._fields)
            yield (
                *(size_name(self.size_bytes), name, spread(rate, 1), spread(self.ratio(name), 3)),
                *(spread(p50, 1), spread(p99, 1)),
            )

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        figures = {name: [each._asdict() for each in own] for name, own in self.figures.items()}
        return {"size_bytes": self.size_bytes, "figures": figures}


def spread(series: Series, digits: int) -> str:
    """Median and quartiles."""
    low, median, high = (f"{value:.{digits}f}" for value in series.quartiles)
    return f"{median} ({low}..{high})"


def measure_all(
    archive: Path, folder: Path, bodies: Sequence[Path], effort: Effort
) -> Iterator[Case]:
    """Figures of all implementations for each body. All of them stay up, and are idle while another
    one is measured. Raises CommandError where one does not start, or a request fails."""
    with ExitStack() as stack:
        urls = {}
        for key, name in NAMES.items():
            progress(f"starting: {name}")
            server = stack.enter_context(IN_RAY_ENVIRONMENT[key](archive, folder / key))
            urls[name] = server.url
        progress(f"starting: {BARE_LOOP}")
        unpacked = unpack(archive, folder / "bare")
        worker = stack.enter_context(running_worker(unpacked, bodies, RAY_PYTHON))
        for index, body in enumerate(bodies):
            measures: dict[str, Measure] = {
                name: partial(over_http, url, body) for name, url in urls.items()
            }
            measures[BARE_LOOP] = partial(_bare, worker, index)
            for url in urls.values():
                request_once(url, image_requests([body])[0], TIMEOUT_S)
            size = body.stat().st_size
            calls = {name: partial(each, *effort[:3]) for name, each in measures.items()}
            show = partial(_show, size_name(size), effort.rounds)
            yield Case(size, alternate(calls, effort.rounds, show))


def over_http(url: str, body: Path, clients: int, seconds: float, warm_up_s: float) -> Figures:
    """Measure a server. Raises CommandError where a request failed."""
    requests, traffic = image_requests([body]), ClosedLoop(clients)
    load = measure(url, requests, traffic, seconds, warm_up_s, TIMEOUT_S)
    if load.failures or not load.requests:
        raise CommandError(f"{url}: {load.failures} of {load.requests} requests failed")
    return Figures(load.work_per_s, load.latency_ms[50], load.latency_ms[99])


def report(cases: Sequence[Case]) -> tuple[Table, RatioPanel]:
    """The table and the plot."""
    rows = [row for case in cases for row in case.rows()]
    ratios = {
        size_name(case.size_bytes): [
            (name, *case.ratio(name).quartiles) for name in list(case.figures)[1:]
        ]
        for case in cases
    }
    panel = RatioPanel("Requests/s relative to the ASGI server", ratios)
    return Table(TITLE, COLUMNS, rows), panel


def _bare(worker: Worker, index: int, clients: int, seconds: float, warm_up_s: float) -> Figures:
    run = worker.run(clients, seconds, warm_up_s, image=index)
    p50_s, p99_s = np.percentile(run.seconds, (50, 99))
    return Figures(run.images_per_s, 1e3 * float(p50_s), 1e3 * float(p99_s))


def _show(title: str, rounds: int, done: int) -> None:
    progress(f"{title}: round {done} of {rounds}")
