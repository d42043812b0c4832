"""The run itself: a server of our own, its traffic and its faults."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from bench.load.answers import Answer
from bench.load.connection import Connection
from bench.load.driver import TIMEOUT_S, generate
from bench.load.notes import Noted, read_notes
from bench.load.plan import Plan
from bench.load.requests import KEPT, Request
from bench.load.traffic import ClosedLoop
from bench.soak.arguments import Options
from bench.soak.good import good_kinds
from bench.soak.hostile import hostile_kinds
from bench.soak.kinds import Kind, groups_of
from bench.soak.memory import Sample, sampling
from bench.soak.outcomes import Judged, judge
from bench.soak.restarts import Restart, killing, ready_workers
from scripts.errors import CommandError
from scripts.pictures import find_pictures
from scripts.torchserve import Server, running_server

LOGS = Path("logs", "soak")
# Of the same traffic, before the first minute.
WARM_UP_S = 10.0
OK = 200


@dataclass
class Soaked:
    """What came of it; it may have ended early.

    Attributes:
        seconds: how long was measured.
        judged: all requests, in seconds from the begin of the window.
        restarts, samples: in the same time.
        generator_cpu_s: None where the run was broken off.
    """

    seconds: float = 0.0
    judged: Sequence[Judged] = ()
    restarts: Sequence[Restart] = ()
    samples: Sequence[Sample] = ()
    generator_cpu_s: float | None = None
    interrupted: bool = False


def soak(options: Options, tell: Callable[[str], None]) -> Soaked:
    """Serves the model, sends the traffic and judges what came.

    Args:
        options: what to do.
        tell: is told what runs now.

    Returns:
        All of it, or after a Ctrl-C what there was until then.

    Raises:
        CommandError: the server or the generator failed, or a quiet server's answers are wrong.
    """
    pictures = find_pictures(options.pictures)
    with tempfile.TemporaryDirectory(prefix="d2serve-soak-") as temporary:
        folder = Path(temporary)
        for name in ("good", "hostile", "bodies"):
            (folder / name).mkdir()
        tell("starting the server")
        with running_server(options.model, log_dir=LOGS, front_door=True) as server:
            url = f"{server.url}/invocations"
            tell("asking for every answer once, one at a time")
            kinds = _kinds(url, server.model_name, pictures, folder)
            ends = datetime.now().astimezone() + timedelta(seconds=options.seconds + WARM_UP_S)
            tell(f"{options.clients} clients send until {ends:%H:%M:%S}; Ctrl-C ends it earlier")
            soaked = send(options, server, _plan(options, url, kinds, folder), kinds)
    return soaked


def _kinds(url: str, model_name: str, pictures: Sequence[Path], folder: Path) -> list[Kind]:
    with closing(Connection(url, TIMEOUT_S)) as connection:
        good = good_kinds(pictures, model_name, partial(_ask, connection), folder / "good")
    return [*good, *hostile_kinds(pictures[0], folder / "hostile")]


def _ask(connection: Connection, request: Request) -> bytes:
    """The answer of a server that does nothing else."""
    reply = connection.send(replace(request, manner=KEPT), Path(request.file).read_bytes())
    if reply.status != OK or not reply.whole:
        raise CommandError(
            f"{request.name}: before the soak began, the server answered with "
            f"{reply.status or 'nothing'}: {reply.body[:200].decode(errors='replace')}"
        )
    return reply.body


def _plan(options: Options, url: str, kinds: Sequence[Kind], folder: Path) -> Plan:
    return Plan(
        url=url,
        groups=groups_of(kinds, options.hostile),
        requests_per_s=0.0,
        warm_up_seconds=WARM_UP_S,
        seconds=options.seconds,
        timeout_seconds=2 * TIMEOUT_S,
        notes=str(folder / "notes.jsonl"),
        bodies=str(folder / "bodies"),
    )


def send(options: Options, server: Server, plan: Plan, kinds: Sequence[Kind]) -> Soaked:
    """Sends the traffic of a plan, with the faults meanwhile, and judges what came."""
    moments = [plan.warm_up_seconds + moment for moment in options.kills]
    interrupted = False
    with (
        sampling(server.process.pid) as samples,
        killing(partial(ready_workers, server), moments) as restarts,
    ):
        try:
            noted: Noted | None = generate(plan, ClosedLoop(options.clients))
        except KeyboardInterrupt:
            interrupted = True
            noted = read_notes(Path(plan.notes))
    if noted is None:
        return Soaked(interrupted=interrupted)
    seconds = _measured_seconds(noted.answers, plan.seconds) if interrupted else plan.seconds
    shifted = [
        Restart(each.killed_at - noted.began_at, each.back_at - noted.began_at) for each in restarts
    ]
    return Soaked(
        seconds=seconds,
        judged=judge(
            noted.answers, {kind.name: kind for kind in kinds}, shifted, Path(plan.bodies)
        ),
        restarts=shifted,
        samples=[
            replace(each, moment=each.moment - noted.began_at)
            for each in samples
            if each.moment >= noted.began_at
        ],
        generator_cpu_s=noted.cpu_s,
        interrupted=interrupted,
    )


def _measured_seconds(answers: Sequence[Answer], planned: float) -> float:
    last = max((answer.done for answer in answers if answer.done is not None), default=0.0)
    return max(0.0, min(planned, last))
