"""Sends traffic to a running server: a closed loop of clients, or an open loop of arrivals."""

import asyncio
import hashlib
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx

from bench.http.client import Client
from bench.http.messages import MARK, Group, Reply, Request

Item = TypeVar("Item")
SEED = 0
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
    """Requests that arrive as a Poisson process, whether or not earlier ones are answered."""

    requests_per_s: float

    def __str__(self) -> str:
        return f"{self.requests_per_s:.1f} requests/s, open loop"


Traffic = ClosedLoop | OpenLoop


@dataclass(frozen=True)
class Plan:
    """A run of the generator.

    Attributes:
        url: of a route that accepts POST.
        groups: requests, by share.
        traffic: a loop.
        seconds: of the measured window.
        warm_up_s: of the same traffic before the window.
        timeout_s: of each request.
        bodies: folder that receives each distinct response body once, under its digest.
        max_requests: of a closed loop; the run ends with the last one.
    """

    url: str
    groups: Sequence[Group]
    traffic: Traffic
    seconds: float
    warm_up_s: float = 0.0
    timeout_s: float = TIMEOUT_S
    bodies: Path | None = None
    max_requests: int | None = None


class Record(NamedTuple):
    """One request; times in seconds from the start of the window, negative in the warm-up.

    Attributes:
        due: when it was to be sent; latency counts from here.
        done: when its response was complete, or had failed.
        digest: of the body; "" where none is kept.
    """

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
        """Whether it counts as throughput."""
        return self.status == httpx.codes.OK and self.whole


@dataclass
class Recording:
    """Records in the order of completion, filled while the generator runs.

    Attributes:
        records: also after an interrupted run.
        began_at: start of the window, in seconds since 1970; 0 before the run.
        cpu_s: CPU time of the generator's thread in the window; None while it is not over.
    """

    records: list[Record] = field(default_factory=list)
    began_at: float = 0.0
    cpu_s: float | None = None


def generate(plan: Plan, recording: Recording) -> None:
    """Send the traffic of a plan; returns when the last request is answered or timed out."""
    asyncio.run(_Run(plan, recording).run())


class _Run:
    def __init__(self, plan: Plan, recording: Recording) -> None:
        self._plan = plan
        self._recording = recording
        self._requests = mixed(plan.groups)
        self._sent = 0
        self._context = httpx.create_ssl_context()
        self._start = time.perf_counter() + plan.warm_up_s
        self._idle: list[Client] = []

    def _now(self) -> float:
        return time.perf_counter() - self._start

    async def run(self) -> None:
        self._recording.began_at = time.time() - self._now()
        traffic = self._plan.traffic
        try:
            if isinstance(traffic, OpenLoop):
                loops = [self._open_loop(traffic.requests_per_s)]
            else:
                loops = [self._client_loop(traffic.pause_s) for _ in range(traffic.clients)]
            if self._plan.max_requests is None:
                loops.append(self._measure_cpu())
            await asyncio.gather(*loops)
        finally:
            for client in self._idle:
                await client.close()

    async def _measure_cpu(self) -> None:
        await asyncio.sleep(-self._now())
        start = time.thread_time()
        await asyncio.sleep(self._plan.seconds - self._now())
        self._recording.cpu_s = time.thread_time() - start

    async def _client_loop(self, pause_s: float) -> None:
        client = self._client()
        while self._now() < self._plan.seconds and self._sent != self._plan.max_requests:
            self._sent += 1
            record = await self._send(client, self._now())
            await asyncio.sleep(pause_s if record.status else max(pause_s, PAUSE_AFTER_FAILURE_S))
        self._idle.append(client)

    async def _open_loop(self, requests_per_s: float) -> None:
        start = self._now()
        slots = asyncio.Semaphore(MAX_CONNECTIONS)
        sending: set[asyncio.Task[None]] = set()
        for moment in poisson_arrivals(requests_per_s, self._plan.seconds - start):
            await asyncio.sleep(max(0.0, start + moment - self._now()))
            task = asyncio.create_task(self._send_on_its_own(start + moment, slots))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)

    async def _send_on_its_own(self, due: float, slots: asyncio.Semaphore) -> None:
        async with slots:
            client = self._client()
            await self._send(client, due)
            self._idle.append(client)

    def _client(self) -> Client:
        if self._idle:
            return self._idle.pop()
        return Client(self._plan.url, self._plan.timeout_s, self._context)

    async def _send(self, client: Client, due: float) -> Record:
        request = next(self._requests)
        reply = await send_marked(client, request)
        record = Record(
            *(due, self._now(), reply.status, reply.whole, request.name),
            *(self._keep(reply.body), reply.request_id, reply.surplus),
        )
        self._recording.records.append(record)
        return record

    def _keep(self, body: bytes) -> str:
        if self._plan.bodies is None:
            return ""
        digest = hashlib.sha256(body).hexdigest()
        file = self._plan.bodies / digest
        if not file.exists():
            file.write_bytes(body)
        return digest


async def send_marked(client: Client, request: Request) -> Reply:
    """Send a request with a mark of its own; the reply has the common mark again."""
    if MARK not in request.body:
        return await client.send(request, request.body)
    mark = uuid.uuid4().hex.rjust(len(MARK), "-").encode()
    reply = await client.send(request, request.body.replace(MARK, mark))
    return reply._replace(body=reply.body.replace(mark, MARK))


def send_one(url: str, request: Request, timeout_s: float = TIMEOUT_S) -> tuple[Reply, float]:
    """Send a single request; the reply and its latency in seconds."""
    recording: list[tuple[Reply, float]] = []

    async def run() -> None:
        client = Client(url, timeout_s)
        start = time.perf_counter()
        recording.append((await send_marked(client, request), time.perf_counter() - start))
        await client.close()

    asyncio.run(run())
    return recording[0]


def poisson_arrivals(requests_per_s: float, within_s: float, seed: int = SEED) -> Iterator[float]:
    """Moments of a Poisson process of that rate, in seconds from 0 to `within_s`."""
    gaps = random.Random(seed)  # noqa: S311
    moment = gaps.expovariate(requests_per_s)
    while moment < within_s:
        yield moment
        moment += gaps.expovariate(requests_per_s)


def shuffled_rounds(items: Sequence[Item], seed: int = SEED) -> Iterator[Item]:
    """Every item once in a random order, then again in another, without end.

    So runs of any length have the same mix, and batches of all sizes form.
    """
    order = random.Random(seed)  # noqa: S311
    while True:
        yield from order.sample(items, len(items))


def mixed(groups: Sequence[Group], seed: int = SEED) -> Iterator[Request]:
    """Requests without end: a group drawn by share, and the next one of its shuffled rounds."""
    draw = random.Random(seed)  # noqa: S311
    rounds = [shuffled_rounds(group.requests, seed) for group in groups]
    while True:
        [chosen] = draw.choices(rounds, [group.share for group in groups])
        yield next(chosen)
