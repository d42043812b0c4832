"""`make bench-peers`: d2serve and other servers of the same model over HTTP, alternately; and the
cost of serving itself: the same pipeline in a process without a server."""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.arguments import parser_of
from bench.baselines.servers import BASELINES, MODELS, Model, our_archive, torchserve
from bench.comparison import OURS, Result, Series, alternate, write_results
from bench.loadgen.generator import ClosedLoop, OpenLoop, Traffic
from bench.loadgen.load import Load, image_requests, measure, request_once
from bench.report import progress
from bench.worker_process import run_worker, unpack
from d2serve.building.archive import DEFAULT_MODEL_CONFIG
from d2serve.errors import CommandError
from d2serve.settings import PRECISIONS

ITSELF = "itself"
TIMEOUT_S = 300.0
# Light load, relative to the capacity.
LIGHT_SHARE = 0.2
BATCH = int(DEFAULT_MODEL_CONFIG["batchSize"])
BATCH_DELAY_MS = float(DEFAULT_MODEL_CONFIG["maxBatchDelay"])
# Percentiles of d2serve and of the bare request.
LIGHT_PERCENTILES = ((50, 50), (99, 50), (99, 99))
Measures = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Ours:
    """The server of d2serve while it runs, its archive unpacked, and the command's arguments."""

    model: Model
    precision: str
    folder: Path
    url: str
    given: argparse.Namespace

    def rounds(self, beside: str, measures: Measures) -> list[tuple[Any, ...]]:
        """Values of each measure, one per round."""

        def show(done: int) -> None:
            progress(f"{self.model.name} {self.precision} beside {beside}: round {done}")

        return [tuple(own) for own in alternate(measures, self.given.rounds, show).values()]

    def saturate(self, url: str) -> float:
        """Requests/s of a server with all clients."""
        return self.load(url, self.model.images, ClosedLoop(self.given.clients)).requests_per_s

    def load(self, url: str, images: Sequence[Path], traffic: Traffic) -> Load:
        """Measure a server. Raises CommandError where a request failed, because the figures would
        not be of the same work."""
        requests = image_requests(images)
        load = measure(url, requests, traffic, self.given.seconds, timeout_s=TIMEOUT_S)
        if load.failures or not load.requests_per_s:
            raise CommandError(
                f"{url}: {load.failures} of {load.requests} requests failed, and "
                f"{load.requests_per_s:.2f}/s succeeded; see the logs, or use longer --seconds"
            )
        return load

    def result(self, case: str, note: str, unit: str, *series: Series) -> Result:
        """A result over HTTP; latencies are in ms."""
        facts = ("http", case, f"{self.model.name} {self.precision}", 1, note, series, unit)
        return Result(*facts, higher_is_better=unit != "ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write baselines.json, .md and .png, after Ctrl-C with what there is."""
    parser = parser_of("baselines", __doc__)
    known = (*BASELINES, ITSELF)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["shapes"], help="to serve")
    others = f"{ITSELF}: the pipeline of d2serve without a server"
    names = ("--baselines", "--peers")
    parser.add_argument(*names, nargs="+", choices=known, default=known, help=others)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"], help=OURS)
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop")
    seconds = "of a measurement; r50 needs several batches of the slowest"
    parser.add_argument("--seconds", type=float, default=20, help=seconds)
    parser.add_argument("--rounds", type=int, default=3, help="alternating")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="d2serve-baselines-") as temporary:
        results = (
            result
            for name, precision in product(given.models, given.precisions)
            for result in measure_all(name, precision, Path(temporary), given)
        )
        write_results(given.output / "baselines", results)
    return 0


def measure_all(
    name: str, precision: str, parent: Path, given: argparse.Namespace
) -> Iterator[Result]:
    """A model beside each baseline that can serve it, and beside its own pipeline."""
    folder = parent / f"{name}-{precision}"
    folder.mkdir()
    model = MODELS[name](folder)
    archive = our_archive(model, precision, folder)
    with torchserve(archive, folder, with_proxy=True) as url:
        ours = Ours(model, precision, unpack(archive, folder / "unpacked"), url, given)
        for baseline in given.baselines:
            if baseline != ITSELF and name in BASELINES[baseline].models:
                yield _beside(ours, baseline, folder / baseline)
        if ITSELF in given.baselines:
            loop = _beside_bare_loop(ours)
            yield loop
            yield from _beside_bare_request(ours, max(loop.ours.values))


def _beside(ours: Ours, name: str, folder: Path) -> Result:
    """Requests/s of both servers at saturation."""
    folder.mkdir()
    with BASELINES[name].serve(ours.model, folder) as url:
        for request in image_requests(ours.model.images):
            # The first response of some servers waits for them to load.
            request_once(url, request, TIMEOUT_S)
        measures = {each: partial(ours.saturate, each) for each in (ours.url, url)}
        rates, theirs = ours.rounds(name, measures)
    note = f"{name} lacks {BASELINES[name].lacks} of d2serve's response"
    series, case = (Series(OURS, rates), Series(name, theirs)), f"{ours.given.clients} clients"
    return ours.result(f"{case}, {name}", note, "requests/s", *series)


def _beside_bare_loop(ours: Ours) -> Result:
    """Requests/s at saturation beside images/s of the pipeline in batches, without a server."""
    bare = partial(run_worker, ours.folder, ours.model.images, BATCH, ours.given.seconds)
    measures: Measures = {OURS: partial(ours.saturate, ours.url), "bare": bare}
    rates, runs = ours.rounds("a bare loop", measures)
    series = (Series(OURS, rates), Series("bare loop", tuple(run.images_per_s for run in runs)))
    case, note = f"{ours.given.clients} clients, bare loop", f"batches of {BATCH} in one process"
    return ours.result(case, note, "requests/s", *series)


def _beside_bare_request(ours: Ours, capacity: float) -> Iterator[Result]:
    """Latency of one image's requests under light load, beside one bare request + batch delay."""
    images, rate = ours.model.images[:1], LIGHT_SHARE * capacity
    traffics: dict[str, Traffic] = {"1 client": ClosedLoop(1), f"{rate:.1f}/s": OpenLoop(rate)}
    load = partial(ours.load, ours.url, images)
    measures = {name: partial(load, traffic) for name, traffic in traffics.items()}
    bare_request = partial(run_worker, ours.folder, images, 1, ours.given.seconds)
    *loads, runs = ours.rounds("a bare request", {**measures, "bare": bare_request})
    note = f"{BATCH_DELAY_MS:g} ms of a bare request are the batch delay"
    for name, own in zip(traffics, loads, strict=True):
        for percent, bare_percent in LIGHT_PERCENTILES:
            latencies = tuple(load.latency_ms[percent] for load in own)
            bares = (1e3 * float(np.percentile(run.seconds, bare_percent)) for run in runs)
            bare = Series(f"bare, p{bare_percent}", tuple(each + BATCH_DELAY_MS for each in bares))
            series = (Series(f"{OURS}, p{percent}", latencies), bare)
            yield ours.result(f"{name}, bare request", note, "ms", *series)
