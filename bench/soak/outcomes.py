"""What each answer of a soak is worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.load.answers import NO_ANSWER, Answer
from bench.soak.expected import error_code
from bench.soak.kinds import Kind
from bench.soak.restarts import Restart

# As it has to be.
RIGHT, REFUSED, LEFT = "right", "refused as it has to be", "left by its client"
# What a worker that is killed takes with it, in the contract's words.
FAILED_BY_RESTART = "5xx within a restart"
# Faults.
WRONG, WRONGLY_REFUSED = "wrong", "not refused as it has to be"
FAILED, LOST = "5xx outside the restarts", "lost"
FAULTS = (WRONG, WRONGLY_REFUSED, FAILED, LOST)
LEAST_SERVER_ERROR = 500


@dataclass(frozen=True)
class Judged:
    """One request.

    Attributes:
        answer: times in seconds from the begin of the window.
        hostile: whether the request was.
        outcome: one of the constants above.
        reason: what is wrong; "" where nothing is.
        restart: whether one went on while it waited.
    """

    answer: Answer
    hostile: bool
    outcome: str
    reason: str
    restart: bool

    @property
    def right(self) -> bool:
        """Whether it is a right answer to a good request."""
        return self.outcome == RIGHT

    @property
    def took_s(self) -> float:
        """Seconds; of what was answered."""
        assert self.answer.done is not None
        return self.answer.done - self.answer.due


def judge(
    answers: Sequence[Answer],
    kinds: Mapping[str, Kind],
    restarts: Sequence[Restart],
    bodies: Path,
) -> list[Judged]:
    """All answers.

    Args:
        answers: as the generator noted them.
        kinds: by name.
        restarts: in the answers' time.
        bodies: the folder with each distinct body under its digest.
    """

    @cache
    def fault(name: str, digest: str) -> str:
        expected = kinds[name].expected
        assert expected
        return expected.fault((bodies / digest).read_bytes())

    @cache
    def code(digest: str) -> str:
        return error_code((bodies / digest).read_bytes())

    return [_judged(answer, kinds[answer.name], restarts, fault, code) for answer in answers]


def _judged(
    answer: Answer,
    kind: Kind,
    restarts: Sequence[Restart],
    fault: Callable[[str, str], str],
    code: Callable[[str], str],
) -> Judged:
    done = float("inf") if answer.done is None else answer.done
    within = any(restart.touches(answer.due, done) for restart in restarts)
    outcome, reason = _outcome(answer, kind, within, fault, code)
    return Judged(answer, kind.hostile, outcome, reason, within)


def _outcome(
    answer: Answer,
    kind: Kind,
    within_restart: bool,
    fault: Callable[[str, str], str],
    code: Callable[[str], str],
) -> tuple[str, str]:
    if kind.expected is None:
        return LEFT, ""
    if not answer.whole:
        begun = answer.status != NO_ANSWER
        return LOST, f"a {answer.status} whose body breaks off" if begun else "no answer"
    if answer.status >= LEAST_SERVER_ERROR:
        told = code(answer.digest)
        reason = f"a {answer.status} {told or 'in other words than the contract has'}"
        return (FAILED_BY_RESTART, reason) if within_restart and told else (FAILED, reason)
    if answer.status != kind.expected.status:
        reason = f"a {answer.status} in place of a {kind.expected.status}"
    else:
        reason = fault(kind.name, answer.digest)
    if reason:
        return (WRONGLY_REFUSED if kind.hostile else WRONG), reason
    return (REFUSED if kind.hostile else RIGHT), ""


def doubled(answers: Sequence[Answer]) -> int:
    """Answers beyond one to a request: bytes that nobody asked for, and ids that come again."""
    ids = [answer.request_id for answer in answers if answer.request_id]
    return sum(answer.surplus > 0 for answer in answers) + len(ids) - len(set(ids))
