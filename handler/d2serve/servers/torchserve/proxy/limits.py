"""Limits on clients and their phases."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from math import inf

# Kept free beside those that serve requests: for health checks, and to tell the others that they
# are too many.
SPARE_CONNECTIONS = 64
# Whatever else the process has open.
OWN_FILES = 64
# Fewer in the time that a body may stand still are as good as none: an attacker could send one
# byte at a time for days.
LEAST_BYTES = 1024
# Of a connection whose messages are not read nobody knows whether it waits for the client or for
# an answer, which may take a while.
SILENCE_S = 300.0


@dataclass(frozen=True)
class Limits:
    """Bounds for the clients of one front door.

    Attributes:
        connections: that may have a request under way at the same time.
        head_s: seconds from a request's first byte, or a connection's start, to its head's end.
        body_s: seconds in which at least LEAST_BYTES of a body come, or of an answer are taken.
        keep_alive_s: seconds that a connection may wait for its next request.
    """

    connections: int = 1024
    head_s: float = 30
    body_s: float = 30
    keep_alive_s: float = 75

    def affordable(self, files: int) -> "Limits":
        """The same, but for no more connections than so many open files allow: two for each."""
        most = (files - OWN_FILES) // 2 - SPARE_CONNECTIONS
        return replace(self, connections=max(1, min(self.connections, most)))


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
