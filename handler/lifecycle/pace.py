"""Where a connection stands, and how long it has stood there."""

from collections.abc import Callable
from enum import Enum
from math import inf

from handler.lifecycle.limits import LEAST_BYTES, SILENCE_S, Limits


class Stage(Enum):
    """What a connection waits for."""

    FIRST = "its first request"
    NEXT = "its next request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    SERVER = "an answer"
    CLIENT = "the client to take its answer"
    BLIND = "what cannot be told"
    END = "the client to close"


# Nothing of a request is there yet.
IDLE = {Stage.FIRST, Stage.NEXT}
BYTES_COUNT = {Stage.BODY, Stage.CLIENT, Stage.BLIND, Stage.END}


class Pace:
    """Whether a connection keeps the server waiting for too long.

    Args:
        limits: how long is too long.
        now: seconds of a clock that does not jump.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._limit_s = {
            Stage.FIRST: limits.head_s,
            Stage.NEXT: limits.keep_alive_s,
            Stage.HEAD: limits.head_s,
            Stage.BODY: limits.body_s,
            Stage.SERVER: inf,
            Stage.CLIENT: limits.body_s,
            Stage.BLIND: SILENCE_S,
            Stage.END: limits.body_s,
        }
        self._now = now
        self._mark: object = None
        self.since = now()

    def is_overdue(self, stage: Stage, turn: int, moved_bytes: int) -> bool:
        """Whether nothing has happened for too long; to be asked at least once a second.

        Args:
            stage: where the connection stands.
            turn: grows with each request and answer.
            moved_bytes: how many have come and gone in all.
        """
        mark = stage, turn, moved_bytes // LEAST_BYTES if stage in BYTES_COUNT else 0
        if mark != self._mark:
            self._mark, self.since = mark, self._now()
        return self._now() - self.since > self._limit_s[stage]
