"""Sends traffic to a running server: a closed loop of clients, or an open loop of arrivals."""

import asyncio
import hashlib
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench.loadgen.client import MARK, Client, Group, Reply, Request

Item = TypeVar("Item")
TIMEOUT_S = 60.0
# Connections of an open loop; further requests wait for one, and their latency includes that.
MAX_CONNECTIONS = 1000
# Spares a server that refuses connections.
PAUSE_AFTER_FAILURE_S = 0.1


@dataclass(frozen=True)
class ClosedLoop:
    """Clients that send their next request when the last one is answered, after a pause."""

    clients: int
    pause_s: float = 0.0

    def __str__(self) -> str:
        return "1 client" if self.clients == 1 else f"{self.clients} clients"


@dataclass(frozen=True)
class OpenLoop:
    """Requests that arrive whether or not earlier ones are answered: as a Poisson process, or
    evenly spaced."""

    requests_per_s: float
    is_even: bool = False

    def __str__(self) -> str:
        return f"{self.requests_per_s:.1f} requests/s, open loop"


Traffic = ClosedLoop | OpenLoop


class Plan(NamedTuple):
    """A run: `seconds` of measured traffic after `warm_up_s` of the same. `bodies` is a folder that
    receives each distinct response body once, under its digest; a closed loop ends after
    `max_requests`."""

    url: str
    groups: Sequence[Group]
    traffic: Traffic
    seconds: float
    warm_up_s: float = 0.0
    timeout_s: float = TIMEOUT_S
    bodies: Path | None = None
    max_requests: int | None = None


class Record(NamedTuple):
    """A request that was due and done (answered or failed) at these seconds from the start of the
    window, negative in the warm-up; `digest` is that of the body, where bodies are kept."""

    due: float
    done: float
    status: int
    whole: bool
    name: str = ""
    digest: str = ""
    request_id: str = ""
    surplus: int = 0

    @property
    def good(self) -> bool:
        """Return whether it counts as throughput."""
        return self.status == 200 and self.whole


@dataclass
class Recording:
    """Records so far, also after an interrupted run; start of the window in seconds since 1970; CPU
    time of the generator's thread in the window, None while it is not over."""

    records: list[Record] = field(default_factory=list)
    began_at: float = 0.0
    cpu_s: float | None = None


def generate(plan: Plan, recording: Recording) -> None:
    """Send the traffic of a plan; returns when the last request is answered or timed out."""
    asyncio.run(_Run(plan, recording).run())


class _Run:
    def __init__(self, plan: Plan, recording: Recording) -> None:
        self._plan, self._recording, self._requests = plan, recording, mixed(plan.groups)
        self._start, self._sent = time.perf_counter() + plan.warm_up_s, 0
        self._idle: list[Client] = []

    def _now(self) -> float:
        return time.perf_counter() - self._start

    async def run(self) -> None:
        self._recording.began_at = time.time() - self._now()
        traffic = self._plan.traffic
        if isinstance(traffic, OpenLoop):
            loops = [self._open_loop(traffic)]
        else:
            loops = [self._client_loop(traffic.pause_s) for _ in range(traffic.clients)]
        if self._plan.max_requests is None:
            loops.append(self._measure_cpu())
        try:
            await asyncio.gather(*loops)
        finally:
            for client in self._idle:
                client.close()

    async def _measure_cpu(self) -> None:
        await asyncio.sleep(-self._now())
        start = time.thread_time()
        await asyncio.sleep(self._plan.seconds - self._now())
        self._recording.cpu_s = time.thread_time() - start

    async def _client_loop(self, pause_s: float) -> None:
        client = self._client()
        while self._now() < self._plan.seconds and self._sent != self._plan.max_requests:
            self._sent += 1
            answered = await self._send(client, self._now())
            await asyncio.sleep(pause_s if answered else max(pause_s, PAUSE_AFTER_FAILURE_S))
        self._idle.append(client)

    async def _open_loop(self, traffic: OpenLoop) -> None:
        start, slots, sending = self._now(), asyncio.Semaphore(MAX_CONNECTIONS), []

        async def send(due: float) -> None:
            async with slots:
                client = self._client()
                await self._send(client, due)
                self._idle.append(client)

        arrivals = even_arrivals if traffic.is_even else poisson_arrivals
        for moment in arrivals(traffic.requests_per_s, self._plan.seconds - start):
            await asyncio.sleep(max(0.0, start + moment - self._now()))
            sending.append(asyncio.create_task(send(start + moment)))
        await asyncio.gather(*sending)

    def _client(self) -> Client:
        return self._idle.pop() if self._idle else Client(self._plan.url, self._plan.timeout_s)

    async def _send(self, client: Client, due: float) -> bool:
        request = next(self._requests)
        reply = await send_marked(client, request)
        facts = (request.name, self._keep(reply.body), reply.request_id, reply.surplus)
        record = Record(due, self._now(), reply.status, reply.whole, *facts)
        self._recording.records.append(record)
        return reply.status > 0

    def _keep(self, body: bytes) -> str:
        if self._plan.bodies is None:
            return ""
        file = self._plan.bodies / hashlib.sha256(body).hexdigest()
        if not file.exists():
            file.write_bytes(body)
        return file.name


async def send_marked(client: Client, request: Request) -> Reply:
    """Send a request with a mark of its own; the reply has the common mark again."""
    if MARK not in request.body:
        return await client.send(request, request.body)
    mark = uuid.uuid4().hex.rjust(len(MARK), "-").encode()
    reply = await client.send(request, request.body.replace(MARK, mark))
    return reply._replace(body=reply.body.replace(mark, MARK))


def send_one(url: str, request: Request, timeout_s: float = TIMEOUT_S) -> tuple[Reply, float]:
    """Send a single request; the reply and its latency in seconds."""

    async def run() -> tuple[Reply, float]:
        client, start = Client(url, timeout_s), time.perf_counter()
        try:
            return await send_marked(client, request), time.perf_counter() - start
        finally:
            client.close()

    return asyncio.run(run())


def poisson_arrivals(requests_per_s: float, within_s: float, seed: int = 0) -> Iterator[float]:
    """Moments of a Poisson process of that rate, in seconds from 0 to `within_s`."""
    gaps, moment = random.Random(seed), 0.0  # noqa: S311
    while (moment := moment + gaps.expovariate(requests_per_s)) < within_s:
        yield moment


def even_arrivals(requests_per_s: float, within_s: float) -> Iterator[float]:
    """Evenly spaced moments, in seconds from 0 to `within_s`."""
    for number in count(1):
        if (moment := number / requests_per_s) >= within_s:
            return
        yield moment


def shuffled_rounds(items: Sequence[Item], seed: int = 0) -> Iterator[Item]:
    """Every item once in a random order, then again in another, without end: runs of any length
    have the same mix, and batches of all sizes form."""
    order = random.Random(seed)  # noqa: S311
    while True:
        yield from order.sample(items, len(items))


def mixed(groups: Sequence[Group], seed: int = 0) -> Iterator[Request]:
    """Requests without end: a group drawn by share, and the next one of its shuffled rounds."""
    draw = random.Random(seed)  # noqa: S311
    rounds = [shuffled_rounds(group.requests, seed) for group in groups]
    while True:
        yield next(draw.choices(rounds, [group.share for group in groups])[0])
