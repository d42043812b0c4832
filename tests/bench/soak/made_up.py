"""A soak that nobody ran: an answer every tenth of a second, all as they have to be."""

from collections.abc import Sequence
from dataclasses import replace

from bench.load.answers import Answer
from bench.load.cpu import WORKER
from bench.load.requests import CRAWLING, Request
from bench.soak.expected import Expected, Refused
from bench.soak.kinds import Kind
from bench.soak.memory import FRONT_DOOR, JAVA, Sample
from bench.soak.outcomes import LEFT, REFUSED, RIGHT, Judged
from bench.soak.restarts import Restart

SECONDS = 300.0
TOOK_S = 0.5
RESTART = Restart(150.0, 154.0)
MEGA = 1_000_000


class Fine:
    """An expected answer: the one that says so."""

    status = 200

    def fault(self, body: bytes) -> str:
        return "" if body == b"fine" else "not fine"


def kind(name: str, expected: Expected | None, *, hostile: bool = False) -> Kind:
    manner = CRAWLING if expected is None else "kept"
    return Kind(Request(name, "", {}, manner), expected, hostile)


KINDS = {
    each.name: each
    for each in (
        kind("good", Fine()),
        kind("bad", Refused(400, "bad_request"), hostile=True),
        kind("leaves", None, hostile=True),
    )
}


def right(due: float, took_s: float = TOOK_S) -> Judged:
    answer = Answer(due, due + took_s, 200, True, "good", "a", f"id-{due:.3f}")
    return Judged(answer, False, RIGHT, "", RESTART.touches(due, due + took_s))


def judged() -> list[Judged]:
    """Ten a second for five minutes, and some hostile ones."""
    good = [right(tenth / 10) for tenth in range(round(10 * SECONDS))]
    refused = Judged(Answer(20.0, 20.1, 400, True, "bad", "b", "id-bad"), True, REFUSED, "", False)
    left = Judged(Answer(30.0, 35.0, 0, False, "leaves"), True, LEFT, "", False)
    return [*good, refused, left]


def with_one(outcome: str, *, hostile: bool = False) -> list[Judged]:
    """The same with another end of one request."""
    first, *others = judged()
    return [replace(first, outcome=outcome, hostile=hostile, reason="<made up>"), *others]


def samples(growth: float = 0.0, of: str = JAVA) -> list[Sample]:
    """A second apart; one kind of process grows by `growth` in all, evenly after the first minute.

    In the restart the worker has another process id from then on.
    """
    found = []
    for second in range(round(SECONDS)):
        part = max(0, second - 60) / (SECONDS - 60)
        sizes = {JAVA: 400 * MEGA, FRONT_DOOR: 300 * MEGA, WORKER: 600 * MEGA}
        sizes[of] += round(part * growth * sizes[of])
        pid = 1 if second < RESTART.killed_at else 2
        found.append(
            Sample(
                float(second),
                {kind: {pid if kind == WORKER else 9: size} for kind, size in sizes.items()},
            )
        )
    return found


def answers(rows: Sequence[Judged]) -> list[Answer]:
    return [row.answer for row in rows]
