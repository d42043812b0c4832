"""Puts one server under load, by locust in a process of its own, and measures.

Locust replaces Python's blocking calls by gevent's as it is imported, so it stays out of this one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.load.answers import NO_ANSWER
from bench.load.figures import Load, Window, summarise
from bench.load.notes import Noted, read_notes
from bench.load.plan import PLAN_VARIABLE, Plan
from bench.load.requests import Group, Request
from bench.load.traffic import ClosedLoop, OpenLoop, Target, Traffic
from scripts.errors import CommandError
from scripts.processes import end_process_group

__all__ = [
    "NO_ANSWER",
    "ClosedLoop",
    "Load",
    "LoadError",
    "OpenLoop",
    "Target",
    "generate",
    "measure",
]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
TIMEOUT_S = 60.0
# Beyond what is planned: for locust to start and to write its notes.
OVERHEAD_S = 60.0
TOLD_LINES = 15


class LoadError(CommandError):
    """The load generator did not do what it was told."""


def measure(
    target: Target,
    traffic: Traffic,
    seconds: float,
    *,
    warm_up_seconds: float = 1.0,
    timeout_seconds: float = TIMEOUT_S,
) -> Load:
    """Sends traffic to a server that runs, and returns when its last request has been answered.

    Args:
        target: what is sent where. No proxy is asked, whatever the environment says.
        traffic: in a closed loop the clients wait for their answers; in an open one each request
            is sent when it is due, and its latency counts from then, even if the generator was
            late or all connections were taken.
        seconds: how long to measure; in a closed loop at least twice as long as an answer takes,
            for few requests are sent otherwise.
        warm_up_seconds: of the same traffic before, which is not measured; at least as long as an
            answer takes, for all clients begin at once.
        timeout_seconds: how long to wait for an answer; the request then counts as failed.

    Raises:
        LoadError: the load generator failed, which is not the server's fault.
    """
    with tempfile.TemporaryDirectory(prefix="d2serve-load-") as folder:
        notes = Path(folder) / "notes.jsonl"
        plan = Plan(
            url=target.url,
            groups=[Group(1.0, [_request(target, path) for path in target.pictures])],
            requests_per_s=traffic.requests_per_s if isinstance(traffic, OpenLoop) else 0.0,
            warm_up_seconds=warm_up_seconds,
            seconds=seconds,
            timeout_seconds=timeout_seconds,
            notes=str(notes),
        )
        noted = generate(plan, traffic)
    assert noted.cpu_s is not None
    return summarise(noted.answers, Window(seconds, noted.began_at, noted.cpu_s))


def generate(plan: Plan, traffic: Traffic) -> Noted:
    """Runs the load generator to its end; what is broken off leaves its notes behind.

    Raises:
        LoadError: it failed, which is not the server's fault.
    """
    notes = Path(plan.notes)
    log = notes.with_name("locust.log")
    _run_locust(plan, traffic, log)
    noted = read_notes(notes)
    if noted is None or noted.cpu_s is None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TOLD_LINES:]
        raise LoadError("locust ended without a result; the end of its log:\n\n" + "\n".join(said))
    return noted


def _request(target: Target, picture: Path) -> Request:
    return Request(picture.name, str(picture.resolve()), target.headers_of(picture))


def _run_locust(plan: Plan, traffic: Traffic, log: Path) -> None:
    planned_s = plan.warm_up_seconds + plan.seconds + plan.timeout_seconds
    plan_file = log.with_name("plan.json")
    plan_file.write_text(plan.to_json(), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(traffic),
            cwd=REPOSITORY,
            env=_environment() | {PLAN_VARIABLE: str(plan_file)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(planned_s + OVERHEAD_S)
        except subprocess.TimeoutExpired:
            raise LoadError(f"locust was not done after {planned_s + OVERHEAD_S:g} s") from None
        finally:
            end_process_group(process)


def _command(traffic: Traffic) -> list[str]:
    if isinstance(traffic, OpenLoop):
        user, users = "OpenLoopSource", 1
    else:
        user, users = "ClosedLoopClient", traffic.clients
    return [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--users", str(users), "--spawn-rate", str(users), user),
    ]


def _environment() -> dict[str, str]:
    """Ours without what locust would take for options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
