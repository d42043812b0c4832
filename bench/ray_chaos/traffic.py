"""Steady traffic whose every response is compared with the expected detections."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from bench.loadgen.client import Client, Request
from bench.loadgen.generator import PAUSE_AFTER_FAILURE_S, Record, shuffled_rounds
from bench.loadgen.load import image_requests, request_once
from bench.soak.expected import (
    TO_GOLDEN,
    TO_RESPONSE,
    Expected,
    Found,
    detected,
    difference,
    error_code,
    read_default,
    read_golden,
)
from d2serve.client.images import find_images
from d2serve.errors import CommandError
from tests.goldens.cases import RESULTS

CLIENTS = 8
TIMEOUT_S = 60.0
RIGHT, WRONG, NO_CONNECTION, LOST = "right", "wrong", "connection error", "lost"


class Sample(NamedTuple):
    """A request and its expected response."""

    request: Request
    expected: Expected


def samples_of(images: Path, url: str, model_name: str) -> list[Sample]:
    """The requests; goldens are expected where they exist, else responses of the idle server.

    Raises:
        CommandError: a response of the idle server is wrong, or two images have the same one.
    """
    files = find_images(images)
    samples: list[Sample] = []
    found: list[Found] = []
    for file, request in zip(files, image_requests(files), strict=True):
        with Image.open(file) as image:
            size_wh = image.size
        body = request_once(url, request)[0].body
        golden = RESULTS / f"{model_name}-{file.stem}.json"
        has_golden = golden.exists()
        instances = read_golden(golden) if has_golden else read_default(body, size_wh)
        tolerance = TO_GOLDEN if has_golden else TO_RESPONSE
        samples.append(Sample(request, detected(read_default, size_wh, instances, tolerance)))
        if fault := samples[-1].expected.fault(body):
            raise CommandError(f"{file}: wrong response before the fault: {fault}")
        if any(not difference(other, instances, TO_RESPONSE) for other in found):
            raise CommandError(f"--images: {file} has the response of another image")
        found.append(instances)
    return samples


@dataclass
class Traffic:
    """The responses, complete when the `with` block of `sending` has ended; times in seconds from
    the first request."""

    samples: Sequence[Sample]
    now: Callable[[], float] = time.perf_counter
    fault_at: float = 0.0
    outcomes: list[tuple[Record, str]] = field(default_factory=list)

    def fault_now(self) -> None:
        """Note the moment of the fault."""
        self.fault_at = self.now()

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of requests by outcome."""
        return Counter(outcome for _, outcome in self.outcomes)

    def interrupted_s(self) -> float:
        """Time from the fault to the end of the last failed request; 0 if none failed."""
        failed = [record.done for record, outcome in self.outcomes if outcome != RIGHT]
        return max(0.0, max(failed, default=0.0) - self.fault_at)

    def unanswered_s(self) -> float:
        """The longest time after the fault without a right response."""
        moments = [record.done for record, outcome in self.outcomes if outcome == RIGHT]
        later = sorted([self.fault_at, *(each for each in moments if each > self.fault_at)])
        return max((b - a for a, b in pairwise(later)), default=float("inf"))

    def slowest_s(self) -> float:
        """The latency of the slowest right response."""
        return max((r.done - r.due for r, outcome in self.outcomes if outcome == RIGHT), default=0)


@contextmanager
def sending(url: str, samples: Sequence[Sample]) -> Iterator[Traffic]:
    """Send requests while the `with` block runs; its end waits for the last responses."""
    traffic, is_done = Traffic(samples), threading.Event()
    started = time.perf_counter()
    traffic.now = lambda: time.perf_counter() - started
    received: list[tuple[Record, bytes]] = []
    requests = shuffled_rounds([each.request for each in samples])

    async def send() -> None:
        client = Client(url, TIMEOUT_S)
        while not is_done.is_set():
            request, due = next(requests), traffic.now()
            reply = await client.send(request, request.body)
            done = traffic.now()
            record = Record(due, done, reply.status, reply.whole, request.name)
            received.append((record._replace(surplus=reply.surplus), reply.body))
            if reply.status == 0:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
        client.close()

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(CLIENTS)))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, send_all())
        try:
            yield traffic
        finally:
            is_done.set()
    running.result()
    expected = {each.request.name: each.expected for each in samples}
    traffic.outcomes += [
        (record, outcome_of(record, body, expected[record.name])) for record, body in received
    ]


def outcome_of(record: Record, body: bytes, expected: Expected) -> str:
    """The outcome of a request: RIGHT, WRONG, NO_CONNECTION, LOST, or the status of an error."""
    if record.surplus:
        return WRONG
    if record.status == 0:
        return LOST if record.done - record.due >= TIMEOUT_S else NO_CONNECTION
    if record.status >= 400:
        code = error_code(body) or f"{len(body)} bytes without an error of the contract"
        return f"{record.status} {code}"
    if not record.whole:
        return NO_CONNECTION
    return RIGHT if record.status == 200 and not expected.fault(body) else WRONG


def as_json(traffic: Traffic) -> dict[str, Any]:
    """All figures."""
    return {
        "requests": len(traffic.outcomes),
        "outcomes": dict(traffic.counts),
        "fault_at": traffic.fault_at,
        "interrupted_s": traffic.interrupted_s(),
        "unanswered_s": traffic.unanswered_s(),
        "slowest_s": traffic.slowest_s(),
    }
