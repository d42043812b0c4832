"""The load generator: `bench.load.driver` starts locust with it, and tells it what to do.

Locust's own statistics count from the sending, warm-up included; here each request is noted with
the moment at which it was due, and the driver makes the figures of that.
"""

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser

from bench.load.answers import NO_ANSWER, Answer, is_whole
from bench.load.plan import PLAN_VARIABLE, Plan
from bench.load.traffic import poisson_arrivals, shuffled_rounds

PLAN = Plan.from_json(os.environ[PLAN_VARIABLE])
# Compressed answers would cost the generator time, and have another length than is declared.
UNCOMPRESSED = {"Accept-Encoding": "identity"}
BODIES = [(Path(path).read_bytes(), headers | UNCOMPRESSED) for path, headers in PLAN.pictures]
CLIENT_NUMBERS = count()
# Connections at once; requests beyond wait for one, and their latency counts on.
MOST_AT_ONCE = 1000
# So that a server that refuses connections is not hammered at.
PAUSE_AFTER_NO_ANSWER_S = 0.1


class Notes:
    """One run's clock and notes: a warm-up, the window, and a drain in which nothing is sent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.waiting: set[float] = set()
        self._window_start = time.perf_counter() + PLAN.warm_up_seconds

    def now(self) -> float:
        """Seconds from the window's begin; negative while the server warms up."""
        return time.perf_counter() - self._window_start

    @property
    def over(self) -> bool:
        """Whether nothing is to be sent any more."""
        return self.now() >= PLAN.seconds

    def note(self, due: float, response: Any) -> Answer:
        """Writes down one request, which is done."""
        status = response.status_code or NO_ANSWER
        answer = Answer(due, self.now(), status, whole=_has_whole_body(response))
        self.answers.append(answer)
        return answer


def _has_whole_body(response: Any) -> bool:
    """The client takes what breaks off before its Content-Length for an answer, so we look."""
    body = response.content or b""
    declared = (response.headers or {}).get("content-length", len(body))
    return int(declared) == len(body) and is_whole(body)


class Generator(FastHttpUser):
    """Sends pictures, and notes what comes back."""

    notes: ClassVar[Notes]
    abstract = True
    host = PLAN.url
    concurrency = MOST_AT_ONCE
    network_timeout = connection_timeout = PLAN.timeout_seconds

    def on_start(self) -> None:
        """Each client has an order of its own."""
        self.bodies = shuffled_rounds(BODIES, seed=next(CLIENT_NUMBERS))

    def send(self, due: float) -> Answer:
        """Sends the next picture and waits for its answer."""
        self.notes.waiting.add(due)
        body, headers = next(self.bodies)
        response = self.client.request("POST", PLAN.url, data=body, headers=dict(headers))  # type: ignore[arg-type]
        self.notes.waiting.discard(due)
        return self.notes.note(due, response)


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
        self.notes.waiting.update(dues)
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
    began_at, cpu_s = time.time() - notes.now(), time.process_time()
    gevent.sleep(PLAN.seconds - notes.now())
    cpu_s = time.process_time() - cpu_s
    with gevent.Timeout(PLAN.timeout_seconds, exception=False):
        while notes.waiting:
            gevent.sleep(0.01)
    unanswered = [Answer(due, None, NO_ANSWER, whole=False) for due in notes.waiting]
    content = {"answers": notes.answers + unanswered, "began_at": began_at, "cpu_s": cpu_s}
    Path(PLAN.result).write_text(json.dumps(content), encoding="utf-8")
    assert environment.runner
    environment.runner.quit()
