"""Latency of a lone client: the ASGI server beside the same pipeline in a process without a server.
Each request follows a rest, because threads of an idle process sleep. Both get the same images, by
turns; figures are computed per round."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench import served
from bench.arguments import parser_of, whole
from bench.arguments import seconds as at_least_0
from bench.baselines.each_model import prepare, write_each_model
from bench.baselines.servers import MODELS
from bench.comparison import Result, Series
from bench.loadgen.client import Request
from bench.loadgen.kept import KeptConnection
from bench.loadgen.load import image_requests
from bench.report import progress
from bench.worker_process import running_worker, unpack
from d2serve.settings import PRECISIONS

SERVER, BARE = "d2serve asgi", "bare pipeline"
WARM_UP = 10
# Sends the request with a number and returns its latency in seconds.
Send = Callable[[int], float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write latency.json, .md and .png."""
    parser = parser_of("latency", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["shapes"], help="to serve")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["fp32"], help="of the network"
    )
    parser.add_argument("--requests", type=whole, default=100, help="of a round, to each")
    parser.add_argument("--rounds", type=whole, default=5, help="of each model and rest")
    rests = "before each request, in ms"
    parser.add_argument(
        "--rests", nargs="+", type=at_least_0, default=[0.0, 10.0, 100.0], help=rests
    )
    given = parser.parse_args(arguments)
    write_each_model("latency", given, measure_model)
    return 0


def measure_model(
    name: str, precision: str, parent: Path, given: argparse.Namespace
) -> Iterator[Result]:
    """Results of one model with each rest."""
    title = f"{name} {precision}"
    folder, model, archive = prepare(name, precision, parent)
    requests = image_requests(model.images)
    with (
        served.asgi(archive, folder / "asgi") as server,
        running_worker(unpack(archive, folder / "bare"), model.images) as worker,
        KeptConnection(server.url) as connection,
    ):

        def bare(number: int) -> float:
            return worker.run(1, 0.0, image=number % len(requests)).seconds[0]

        senders: dict[str, Send] = {SERVER: partial(_send, connection, requests), BARE: bare}
        measure_round(senders, WARM_UP, 0.0)
        for rest_ms in given.rests:
            rounds = []
            for done in range(1, given.rounds + 1):
                rounds.append(measure_round(senders, given.requests, rest_ms / 1e3))
                progress(f"{title}, {rest_ms:g} ms of rest: round {done} of {given.rounds}")
            yield from results_of(title, rest_ms, rounds)


def _send(connection: KeptConnection, requests: Sequence[Request], number: int) -> float:
    return connection.send(requests[number % len(requests)])


def measure_round(
    senders: Mapping[str, Send], requests: int, rest_s: float
) -> dict[str, list[float]]:
    """Latencies in seconds of a number of requests to each, by turns."""
    latencies: dict[str, list[float]] = {name: [] for name in senders}
    for number in range(requests):
        for name, send in senders.items():
            time.sleep(rest_s)
            latencies[name].append(send(number))
    return latencies


def results_of(
    model: str, rest_ms: float, rounds: Sequence[Mapping[str, Sequence[float]]]
) -> Iterator[Result]:
    """The median and the 99th percentile of each round."""
    for percent in (50, 99):
        series = [
            Series(name, tuple(float(np.percentile(each[name], percent)) for each in rounds))
            for name in (SERVER, BARE)
        ]
        case = f"one client, rests of {rest_ms:g} ms, p{percent}"
        yield Result("latency", case, model, 1, "", tuple(series))
