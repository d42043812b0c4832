"""`make bench-peers`: the servers of d2serve beside the same pipeline in a process without a server
(the bare loop), and beside other servers of the same model. Implementations run alternately; ratios
and differences are computed per round."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import served
from bench.arguments import parser_of, positive, whole
from bench.baselines.each_model import prepare, write_each_model
from bench.baselines.servers import BASELINES, MODELS, Model
from bench.comparison import Result, Series, alternate
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure, request_once
from bench.report import progress
from bench.served import Served
from bench.worker_process import Worker, running_worker, unpack
from d2serve.errors import CommandError
from d2serve.settings import PRECISIONS

# d2serve's servers; the ASGI server is always measured, and the others are compared with it.
ASGI, BARE_LOOP = served.ASGI, "bare-loop"
OURS: Mapping[str, Callable[[Path, Path], AbstractContextManager[Served[Any]]]] = {
    **served.SERVERS,
    "torchserve-bare": partial(served.torchserve, with_proxy=False),
}
KNOWN = (*(name for name in OURS if name != ASGI), BARE_LOOP, *BASELINES)
TIMEOUT_S = 300.0
MIN_WARM_UP_S, QUICK_WARM_UP_S = 1.0, 0.2


class Figures(NamedTuple):
    """One measurement of an implementation."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


class Implementation(NamedTuple):
    """A running implementation.

    Attributes:
        name: for the report.
        measure: measures it with a number of clients, for seconds and after others to warm up.
        note: what the report says about it.
        request_s: latency of its slowest request while it is idle, in seconds.
    """

    name: str
    measure: Callable[[int, float, float], Figures]
    note: str
    request_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write baselines.json, .md and .png, after Ctrl-C with what there is."""
    parser = parser_of("baselines", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["shapes"], help="to serve")
    names, beside = ("--baselines", "--peers"), "beside d2serve's ASGI server"
    parser.add_argument(*names, nargs="+", choices=KNOWN, default=KNOWN, help=beside)
    precisions = "of d2serve"
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["fp32"], help=precisions
    )
    parser.add_argument("--clients", nargs="+", type=whole, default=[1, 16], help="closed loops")
    seconds = "of a measurement, at least"
    parser.add_argument("--seconds", type=positive, default=20, help=seconds)
    parser.add_argument("--rounds", type=whole, default=3, help="alternating")
    parser.add_argument("--quick", action="store_true", help="one short round: a trial")
    given = parser.parse_args(arguments)
    if given.quick:
        given.seconds, given.rounds = 1.0, 1
    write_each_model("baselines", given, measure_all)
    return 0


def measure_all(
    name: str, precision: str, parent: Path, given: argparse.Namespace
) -> Iterator[Result]:
    """Results of one model. All implementations stay up, and are idle while others are measured."""
    title = f"{name} {precision}"
    folder, model, archive = prepare(name, precision, parent)
    with ExitStack() as stack:
        started = []
        for key in (ASGI, *given.baselines):
            if key not in BASELINES or name in BASELINES[key].models:
                progress(f"{title}: starting {key}")
                started.append(start(key, model, archive, folder / key, stack))
        note = "; ".join(f"{each.name}: {each.note}" for each in started)
        for clients in given.clients:
            calls = {
                each.name: partial(each.measure, clients, *times(each, clients, given))
                for each in started
            }
            show = partial(_show, f"{title}, {ClosedLoop(clients)}", given.rounds)
            yield from results_of(clients, title, note, alternate(calls, given.rounds, show))


def times(
    implementation: Implementation, clients: int, given: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of a measurement, in which each client gets a response even without batches, and of
    the warm-up before."""
    all_clients_s = implementation.request_s * clients
    warm_up_s = QUICK_WARM_UP_S if given.quick else MIN_WARM_UP_S
    return max(given.seconds, all_clients_s + implementation.request_s), max(
        warm_up_s, all_clients_s / 2
    )


def start(key: str, model: Model, archive: Path, folder: Path, stack: ExitStack) -> Implementation:
    """Start an implementation in a folder of its own; the stack ends it."""
    folder.mkdir()
    if key == BARE_LOOP:
        worker = stack.enter_context(running_worker(unpack(archive, folder), model.images))
        note = f"one process with its clients as threads, ready after {worker.start.ready_s:.1f} s"
        return Implementation(key, partial(in_process, worker), note, worker.start.second_request_s)
    if key in OURS:
        server = stack.enter_context(OURS[key](archive, folder))
        name, url, note = f"d2serve {key}", server.url, f"ready after {server.ready_s:.1f} s"
    else:
        url = stack.enter_context(BASELINES[key].serve(model, folder))
        name, note = key, f"lacks {BASELINES[key].lacks} of d2serve's response"
    requests = image_requests(model.images)
    # The first response of some servers waits for them to load.
    request_once(url, requests[0], TIMEOUT_S)
    request_s = max(request_once(url, each, TIMEOUT_S)[1] for each in requests)
    return Implementation(name, partial(over_http, url, model), note, request_s)


def over_http(url: str, model: Model, clients: int, seconds: float, warm_up_s: float) -> Figures:
    """Measure a server. Raises CommandError where a request failed, because the figures would not
    be of the same work."""
    requests, traffic = image_requests(model.images), ClosedLoop(clients)
    load = measure(url, requests, traffic, seconds, warm_up_s, TIMEOUT_S)
    if load.failures or not load.requests:
        raise CommandError(
            f"{url}: {load.failures} of {load.requests} requests failed; see the logs, or use "
            "longer --seconds"
        )
    return Figures(load.work_per_s, load.latency_ms[50], load.latency_ms[99])


def in_process(worker: Worker, clients: int, seconds: float, warm_up_s: float) -> Figures:
    """Measure the pipeline without a server."""
    run = worker.run(clients, seconds, warm_up_s)
    p50_s, p99_s = np.percentile(run.seconds, (50, 99))
    return Figures(run.images_per_s, 1e3 * float(p50_s), 1e3 * float(p99_s))


def results_of(
    clients: int, model: str, note: str, figures: Mapping[str, Sequence[Figures]]
) -> Iterator[Result]:
    """Results of the rounds with a number of clients: rates, latencies, and the latency that each
    server adds to the bare loop's, if that was measured."""
    case = str(ClosedLoop(clients))

    def series_of(field: str) -> tuple[Series, ...]:
        return tuple(
            Series(name, tuple(getattr(each, field) for each in own))
            for name, own in figures.items()
        )

    rates = series_of("requests_per_s")
    yield Result("http", case, model, 1, note, rates, "requests/s", higher_is_better=True)
    for percent in ("p50", "p99"):
        facts = ("http", f"{case}, {percent}", model, 1, "")
        yield Result(*facts, series_of(f"{percent}_ms"), "ms")
    if BARE_LOOP not in figures:
        return
    bare = [each.p50_ms for each in figures[BARE_LOOP]]
    for each in series_of("p50_ms"):
        if each.name != BARE_LOOP:
            added = tuple(own - least for own, least in zip(each.values, bare, strict=True))
            facts = ("http", f"{case}, p50 beyond the bare loop", model, 1, "")
            yield Result(*facts, (Series(each.name, added),), "ms")


def _show(title: str, rounds: int, done: int) -> None:
    progress(f"{title}: round {done} of {rounds}")
