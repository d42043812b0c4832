"""The load generator: `bench.load.driver` starts locust with it, and tells it what to do.

Locust's own statistics count from the sending, warm-up included; here each request is noted with
the moment at which it was due, and the driver makes the figures of that.
"""

import os
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser

from bench.load.answers import NO_ANSWER, Answer, Reply, is_whole
from bench.load.connection import Connection
from bench.load.notes import BEGAN_AT, CPU_S, Notebook
from bench.load.plan import PLAN_VARIABLE, Plan
from bench.load.replies import REQUEST_ID
from bench.load.requests import LIBRARY, MARK, Request
from bench.load.traffic import mixed, poisson_arrivals

PLAN = Plan.from_json(Path(os.environ[PLAN_VARIABLE]).read_text(encoding="utf-8"))
# Compressed answers would cost the generator time, and have another length than is declared.
UNCOMPRESSED = {"Accept-Encoding": "identity"}
BODIES = {
    request.file: Path(request.file).read_bytes()
    for group in PLAN.groups
    for request in group.requests
}
# All clients take from it in turns.
NEXT_REQUESTS = mixed(PLAN.groups)
# Connections at once; requests beyond wait for one, and their latency counts on.
MOST_AT_ONCE = 1000
# So that a server that refuses connections is not hammered at.
PAUSE_AFTER_NO_ANSWER_S = 0.1


class Notes:
    """One run's clock and notes: a warm-up, the window, and a drain in which nothing is sent."""

    def __init__(self) -> None:
        self.book = Notebook(Path(PLAN.notes), Path(PLAN.bodies) if PLAN.bodies else None)
        self.waiting: dict[float, str] = {}
        self._window_start = time.perf_counter() + PLAN.warm_up_seconds

    def now(self) -> float:
        """Seconds from the window's begin; negative while the server warms up."""
        return time.perf_counter() - self._window_start

    @property
    def over(self) -> bool:
        """Whether nothing is to be sent any more."""
        return self.now() >= PLAN.seconds

    def note(self, due: float, request: Request, reply: Reply) -> Answer:
        """Writes down one request, which is done."""
        done = self.now()
        digest = self.book.keep(reply.body)
        facts = (request.name, digest, reply.request_id, reply.surplus)
        answer = Answer(due, done, reply.status, reply.whole, *facts)
        self.book.answer(answer)
        return answer


class Generator(FastHttpUser):
    """Sends what the plan has, and notes what comes back."""

    notes: ClassVar[Notes]
    abstract = True
    host = PLAN.url
    concurrency = MOST_AT_ONCE
    network_timeout = connection_timeout = PLAN.timeout_seconds

    def on_start(self) -> None:
        """Each client has a connection of its own."""
        self.connection = Connection(PLAN.url, PLAN.timeout_seconds)

    def on_stop(self) -> None:
        """Ends it."""
        self.connection.close()

    def send(self, due: float) -> Answer:
        """Sends the next request and waits for its answer."""
        request = next(NEXT_REQUESTS)
        self.notes.waiting[due] = request.name
        reply = self._exchange(request)
        self.notes.waiting.pop(due)
        return self.notes.note(due, request, reply)

    def _exchange(self, request: Request) -> Reply:
        """The answer, in which the mark of a request is as it is in the plan."""
        mark = uuid.uuid4().hex.rjust(len(MARK), "-").encode()
        body = BODIES[request.file].replace(MARK, mark)
        if request.manner == LIBRARY:
            return self._by_locust(request, body)
        reply = self.connection.send(request, body)
        return reply._replace(body=reply.body.replace(mark, MARK))

    def _by_locust(self, request: Request, body: bytes) -> Reply:
        headers = {**request.headers, **UNCOMPRESSED}
        response: Any = self.client.request("POST", PLAN.url, data=body, headers=headers)  # type: ignore[arg-type]
        received, fields = response.content or b"", response.headers or {}
        # The client takes what breaks off before its Content-Length for an answer, so we look.
        whole = int(fields.get("content-length", len(received))) == len(received)
        return Reply(
            status=response.status_code or NO_ANSWER,
            body=received,
            whole=whole and is_whole(received),
            request_id=fields.get(REQUEST_ID, ""),
        )


class ClosedLoopClient(Generator):
    """Sends as soon as the last answer has come."""

    @task
    def send_next(self) -> None:
        """One request."""
        if self.notes.over:
            raise StopUser
        if self.send(self.notes.now()).status == NO_ANSWER:
            gevent.sleep(PAUSE_AFTER_NO_ANSWER_S)


class OpenLoopSource(Generator):
    """Sends at the moments of a Poisson process, each request on its own."""

    @task
    def send_all(self) -> None:
        """All requests of the run, waiting for none."""
        start = self.notes.now()
        arrivals = poisson_arrivals(PLAN.requests_per_s, PLAN.seconds - start)
        dues = [start + moment for moment in arrivals]
        self.notes.waiting.update(dict.fromkeys(dues, ""))
        for due in dues:
            gevent.sleep(max(0.0, due - self.notes.now()))
            gevent.spawn(self.send, due)
        raise StopUser


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def start(environment: Environment, **_: Any) -> None:
    """Starts the run's clock before the first client is there."""
    Generator.notes = Notes()
    gevent.spawn(conduct, environment, Generator.notes)


def conduct(environment: Environment, notes: Notes) -> None:
    """Waits for the window and for what is under way then, and writes the notes."""
    gevent.sleep(-notes.now())
    notes.book.fact(BEGAN_AT, time.time() - notes.now())
    cpu_s = time.process_time()
    gevent.sleep(PLAN.seconds - notes.now())
    cpu_s = time.process_time() - cpu_s
    with gevent.Timeout(PLAN.timeout_seconds, exception=False):
        while notes.waiting:
            gevent.sleep(0.01)
    for due, name in notes.waiting.items():
        notes.book.answer(Answer(due, None, NO_ANSWER, whole=False, name=name))
    # The last word: the driver takes notes without it for broken off.
    notes.book.fact(CPU_S, cpu_s)
    assert environment.runner
    environment.runner.quit()
