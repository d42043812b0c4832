"""Figures of a window of traffic that carries images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import numpy as np

from bench.http.generator import TIMEOUT_S, Plan, Record, Recording, Traffic, generate, send_one
from bench.http.messages import Group, Request
from d2serve.client.transport import content_type_of
from d2serve.errors import CommandError

PERCENTILES = (50, 90, 95, 99)
# Beyond this share of one core, the figures describe the generator as well.
SATURATED_PERCENT = 90.0
JSON = {"Accept": "application/json"}


@dataclass(frozen=True)
class Load:
    """Figures of a window.

    Attributes:
        requests: due in the window.
        failures: those of them with a status other than 200, or an incomplete response.
        requests_per_s: good responses that were complete in the window, by its length.
        latency_ms: percentile to ms of the good ones, from when a request was due; may be empty.
        statuses: HTTP status to number of requests; NO_RESPONSE without a response.
        seconds, began_at: length and start of the window, in seconds (since 1970).
        generator_cpu_percent: of one core, which is all that the generator can use.
        rejected_latency_ms: as latency_ms, of the requests with a 503.
        latencies_s: of the good requests.
    """

    requests: int
    failures: int
    requests_per_s: float
    latency_ms: Mapping[int, float]
    statuses: Mapping[int, int]
    seconds: float
    began_at: float
    generator_cpu_percent: float
    rejected_latency_ms: Mapping[int, float] = field(default_factory=dict)
    latencies_s: Sequence[float] = field(default=(), repr=False)

    @property
    def generator_saturated(self) -> bool:
        """Whether the generator was too busy for figures of the server alone."""
        return self.generator_cpu_percent > SATURATED_PERCENT


def image_requests(images: Sequence[Path], headers: Mapping[str, str] = JSON) -> list[Request]:
    """A request for each image file."""
    return [
        Request(str(path), path.read_bytes(), {**headers, "Content-Type": content_type_of(path)})
        for path in images
    ]


def measure(
    url: str,
    requests: Sequence[Request],
    traffic: Traffic,
    seconds: float,
    *,
    warm_up_s: float = 1.0,
    timeout_s: float = TIMEOUT_S,
) -> Load:
    """Send requests to a running server for `seconds`, after a warm-up of the same traffic.

    In a closed loop both should last at least as long as a response takes.
    """
    recording = Recording()
    generate(Plan(url, [Group(1.0, requests)], traffic, seconds, warm_up_s, timeout_s), recording)
    return summarise(recording, seconds)


def summarise(recording: Recording, seconds: float) -> Load:
    """Figures of a window: throughput by when responses were complete, latency by due times.

    By completion, a short window would miss just the slow requests.
    """
    counted = [each for each in recording.records if 0 <= each.due < seconds]
    good = [each for each in counted if each.good]
    complete = sum(each.good and 0 <= each.done < seconds for each in recording.records)
    rejected = [each for each in counted if each.status == HTTPStatus.SERVICE_UNAVAILABLE]
    return Load(
        requests=len(counted),
        failures=len(counted) - len(good),
        requests_per_s=complete / seconds,
        latency_ms=_percentiles_ms(good),
        statuses=dict(sorted(Counter(each.status for each in counted).items())),
        seconds=seconds,
        began_at=recording.began_at,
        generator_cpu_percent=100 * (recording.cpu_s or 0.0) / seconds,
        rejected_latency_ms=_percentiles_ms(rejected),
        latencies_s=tuple(each.done - each.due for each in good),
    )


def check_response(url: str, request: Request) -> float:
    """Send one request; its latency in seconds.

    Raises:
        CommandError: the response is not a complete 200.
    """
    reply, seconds = send_one(url, request)
    if reply.status != HTTPStatus.OK or not reply.whole:
        text = " ".join(reply.body.decode(errors="replace").split())[:200]
        raise CommandError(
            f"{url}: {request.name} received {reply.status or 'no response'}, expected a complete "
            f"200: {text or 'check that the server runs'}"
        )
    return seconds


def _percentiles_ms(records: Sequence[Record]) -> dict[int, float]:
    if not records:
        return {}
    found = 1000 * np.percentile([each.done - each.due for each in records], PERCENTILES)
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}
