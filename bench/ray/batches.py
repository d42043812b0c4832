"""Batches of evenly spaced requests below capacity: d2serve's batcher in a replica of Ray Serve
beside Ray's `serve.batch` around the same pipeline."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bench.comparison import Series, alternate
from bench.loadgen.client import Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Traffic
from bench.loadgen.load import Load, image_requests, measure, request_once
from bench.ray.throughput import Effort, spread
from bench.report import REPOSITORY, Table, progress
from bench.served import IN_RAY_ENVIRONMENT, RAY
from bench.worker_process import unpack
from d2serve.errors import CommandError
from tests.environment import clean_environment
from tests.serving.ray_server import RAY_PYTHON

OURS, THEIRS = "d2serve's batcher", "serve.batch"
MODULE = "bench.ray.serve_batch"
FRACTION = 0.75
TIMEOUT_S = 120.0
# Metrics are published after the response.
SETTLE_S = 0.5
STOP_WITHIN_S = 60.0
FORWARD = re.compile(rb"^d2serve_forward_images_(sum|count)\{[^}]*\} (\S+)$", re.MULTILINE)
COLUMNS = ("implementation", "images per forward pass", "p50 ms", "p99 ms", "responses/s", "failed")


class Figures(NamedTuple):
    """One measurement: images per forward pass, latency, complete responses/s, and failures."""

    batch_size: float
    p50_ms: float
    p99_ms: float
    responses_per_s: float
    failures: int


class Comparison(NamedTuple):
    """Capacity in requests/s of each implementation with a closed loop, the rate of the open loop,
    and figures by implementation, one per round."""

    capacity: Mapping[str, float]
    requests_per_s: float
    figures: Mapping[str, Sequence[Figures]]

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        figures = {name: [each._asdict() for each in own] for name, own in self.figures.items()}
        return {**self._asdict(), "figures": figures}


def compare(archive: Path, folder: Path, image: Path, effort: Effort) -> Comparison:
    """Measure both with a share of the capacity of d2serve's batcher, which is measured first.
    Raises CommandError where one does not start or returns an error at its capacity."""
    requests = image_requests([image])
    with ExitStack() as stack:
        progress(f"starting: {OURS}")
        server = stack.enter_context(IN_RAY_ENVIRONMENT[RAY](archive, folder / RAY))
        progress(f"starting: {THEIRS}")
        theirs = stack.enter_context(serve_batch(unpack(archive, folder / "model"), folder))
        urls = {OURS: server.url, THEIRS: f"{theirs}/predictions"}
        metrics = {OURS: f"{server.handle.url}/metrics", THEIRS: f"{theirs}/metrics"}
        capacity = {}
        for name, url in urls.items():
            progress(f"capacity: {name}")
            request_once(url, requests[0], TIMEOUT_S)
            load = loaded(url, requests, ClosedLoop(effort.clients), effort)
            if load.failures:
                raise CommandError(f"{url}: {load.failures} of {load.requests} requests failed")
            capacity[name] = load.work_per_s
        rate = FRACTION * capacity[OURS]
        traffic = OpenLoop(rate, is_even=True)
        calls = {
            name: partial(figures_of, url, metrics[name], requests, traffic, effort)
            for name, url in urls.items()
        }
        rounds = effort.rounds
        show = partial(_show, f"{rate:.1f} requests/s", rounds)
        return Comparison(capacity, rate, alternate(calls, rounds, show))


def figures_of(
    url: str, metrics_url: str, requests: Sequence[Request], traffic: Traffic, effort: Effort
) -> Figures:
    """Measure one implementation. Raises CommandError without a complete response."""
    before = forward_counts(metrics_url)
    load = loaded(url, requests, traffic, effort)
    time.sleep(SETTLE_S)
    after = forward_counts(metrics_url)
    if not load.latency_ms:
        raise CommandError(f"{url}: all of {load.requests} requests failed")
    images, passes = (after[name] - before[name] for name in ("sum", "count"))
    latency = load.latency_ms
    return Figures(images / passes, latency[50], latency[99], load.requests_per_s, load.failures)


def loaded(url: str, requests: Sequence[Request], traffic: Traffic, effort: Effort) -> Load:
    """Send traffic to a server."""
    return measure(url, requests, traffic, effort.seconds, effort.warm_up_s, TIMEOUT_S)


def forward_counts(url: str) -> dict[str, float]:
    """The images (`sum`) and the number (`count`) of forward passes so far, from the metrics.
    Raises CommandError where they are missing."""
    content = httpx.get(url, trust_env=False, timeout=TIMEOUT_S).content
    counts = {name.decode(): float(value) for name, value in FORWARD.findall(content)}
    if len(counts) != 2:
        raise CommandError(f"{url} has no metric d2serve_forward_images")
    return counts


@contextmanager
def serve_batch(model: Path, log_dir: Path) -> Iterator[str]:
    """Serve an unpacked archive with `serve.batch` while the block runs; yields the base URL.
    Raises CommandError where it does not start."""
    log_file = log_dir / "serve-batch.log"
    with (
        log_file.open("w+") as log,
        subprocess.Popen(
            [RAY_PYTHON, "-m", MODULE, str(model)],
            cwd=REPOSITORY,
            env={**clean_environment(), "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            # Ray may print lines of its own.
            lines = (line.strip() for line in process.stdout)
            url = next((line for line in lines if line.startswith("http://")), "")
            if not url:
                log.seek(0)
                raise CommandError(f"{THEIRS} did not start:\n{log.read()[-2000:]}")
            yield url
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


def report(found: Comparison) -> tuple[Table, list[str]]:
    """The table, and notes."""
    rows = []
    for name, own in found.figures.items():
        size, p50, p99, rate = (
            Series(name, tuple(getattr(each, field) for each in own))
            for field in Figures._fields[:-1]
        )
        failed = str(sum(each.failures for each in own))
        texts = (spread(size, 2), spread(p50, 1), spread(p99, 1), spread(rate, 1), failed)
        rows.append((name, *texts))
    title = (
        f"Evenly spaced requests at {FRACTION:g} of the capacity of {OURS}, "
        f"{found.requests_per_s:.1f} requests/s; medians (quartiles) of alternating rounds"
    )
    notes = [
        f"capacity of {name} in a closed loop: {rate:.1f} requests/s"
        for name, rate in found.capacity.items()
    ]
    return Table(title, COLUMNS, rows), notes


def _show(title: str, rounds: int, done: int) -> None:
    progress(f"{title}: round {done} of {rounds}")
