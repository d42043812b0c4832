"""Figures of a window of traffic that carries images."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.loadgen.client import Group, Reply, Request
from bench.loadgen.generator import TIMEOUT_S, Plan, Record, Recording, Traffic, generate, send_one
from d2serve.client.images import content_type_of
from d2serve.errors import CommandError

PERCENTILES = (50, 90, 95, 99)
# Beyond this share of one core, the figures describe the generator as well.
SATURATED_PERCENT = 90.0


class Load(NamedTuple):
    """Figures of a window of `seconds` from `began_at`, in seconds since 1970: requests that were
    due, those that failed, complete responses per second, latency by percentile of the good ones
    and of those with a 503, requests by status, CPU use of the generator's one core, and the work
    of the window in responses per second; see `work_in`."""

    requests: int
    failures: int
    requests_per_s: float
    latency_ms: dict[int, float]
    statuses: dict[int, int]
    seconds: float
    began_at: float
    generator_cpu_percent: float
    rejected_latency_ms: dict[int, float]
    work_per_s: float = 0.0


def image_requests(images: Sequence[Path]) -> list[Request]:
    """A request for each image file, for JSON."""
    accept, requests = {"Accept": "application/json"}, []
    for path in images:
        headers = {**accept, "Content-Type": content_type_of(path)}
        requests.append(Request(str(path), path.read_bytes(), headers))
    return requests


def measure(
    url: str,
    requests: Sequence[Request],
    traffic: Traffic,
    seconds: float,
    warm_up_s: float = 1.0,
    timeout_s: float = TIMEOUT_S,
) -> Load:
    """Send requests to a running server for `seconds`, after a warm-up of the same traffic. In a
    closed loop both should last at least as long as a response takes."""
    recording = Recording()
    generate(Plan(url, [Group(1.0, requests)], traffic, seconds, warm_up_s, timeout_s), recording)
    return summarise(recording, seconds)


def summarise(recording: Recording, seconds: float) -> Load:
    """Figures of a window: throughput by when responses were complete, latency by due times, for a
    short window would otherwise miss just the slow requests."""
    counted = [each for each in recording.records if 0 <= each.due < seconds]
    good = [each for each in counted if each.good]
    complete = sum(each.good and 0 <= each.done < seconds for each in recording.records)
    statuses = Counter(each.status for each in counted)
    return Load(
        *(len(counted), len(counted) - len(good), complete / seconds, _percentiles_ms(good)),
        *(dict(sorted(statuses.items())), seconds, recording.began_at),
        generator_cpu_percent=100 * (recording.cpu_s or 0.0) / seconds,
        rejected_latency_ms=_percentiles_ms([each for each in counted if each.status == 503]),
        work_per_s=work_in(seconds, [each for each in recording.records if each.good]) / seconds,
    )


def work_in(seconds: float, records: Iterable[Record]) -> float:
    """The number of responses whose work was done in a window, each with the share of its time that
    lies in it. In closed loops this is the throughput without the steps of whole batches."""
    return sum(
        max(0.0, min(each.done, seconds) - max(each.due, 0.0)) / (each.done - each.due)
        for each in records
    )


def request_once(url: str, request: Request, timeout_s: float = TIMEOUT_S) -> tuple[Reply, float]:
    """Send one request; the reply and its latency in seconds. Raises CommandError for any response
    but a complete 200."""
    reply, seconds = send_one(url, request, timeout_s)
    if reply.status != 200 or not reply.whole:
        text = " ".join(reply.body.decode(errors="replace").split())[:200]
        raise CommandError(
            f"{url}: {request.name} received {reply.status or 'no response'}, expected a complete "
            f"200: {text or 'check that the server runs'}"
        )
    return reply, seconds


def _percentiles_ms(records: Sequence[Record]) -> dict[int, float]:
    latencies = [each.done - each.due for each in records]
    if not latencies:
        return {}
    found = 1000 * np.percentile(latencies, PERCENTILES)
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}
