"""Connection limits and timeouts of the proxy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

# Seconds for the head of a request, from its first byte or, for the first request, from the
# start of the connection.
REQUEST_HEAD_SECONDS = 30.0
# Seconds in which at least MIN_PROGRESS_BYTES of a body arrive, or of a response are sent.
REQUEST_BODY_SECONDS = 30.0
# Seconds that an idle connection stays open for the next request.
KEEP_ALIVE_SECONDS = 75.0
# Seconds until TorchServe responds to a complete request. Its own timeout is shorter, but starts
# only when a worker receives the request.
RESPONSE_SECONDS = 900.0
# Less progress than this counts as no progress. Otherwise a client could keep a connection for
# days by sending single bytes.
MIN_PROGRESS_BYTES = 1024
# Connections beyond the limit, for health checks and for 503 responses.
SPARE_CONNECTIONS = 64
# File descriptors that the process needs besides its connections.
RESERVED_FILES = 64


@dataclass(frozen=True)
class Limits:
    """Limits for the clients of one proxy.

    Attributes:
        connections: maximum number of connections with a request in progress.
        request_bytes: maximum size of a request body.
        queued_bytes: maximum size of all request bodies without a response together; a single one
            may be larger.
        request_head_s: see REQUEST_HEAD_SECONDS.
        request_body_s: see REQUEST_BODY_SECONDS.
        keep_alive_s: see KEEP_ALIVE_SECONDS.
        response_s: see RESPONSE_SECONDS.
    """

    connections: int = 1024
    request_bytes: int = 100_000_000
    queued_bytes: int = 1_000_000_000
    request_head_s: float = REQUEST_HEAD_SECONDS
    request_body_s: float = REQUEST_BODY_SECONDS
    keep_alive_s: float = KEEP_ALIVE_SECONDS
    response_s: float = RESPONSE_SECONDS

    def capped_by_files(self, max_files: int) -> "Limits":
        """The same limits with at most as many connections as `max_files` descriptors allow.

        Each connection needs two: one to the client, one to the server.
        """
        affordable = (max_files - RESERVED_FILES) // 2 - SPARE_CONNECTIONS
        return replace(self, connections=max(1, min(self.connections, affordable)))


class Phase(Enum):
    """The event that a connection waits for."""

    FIRST_REQUEST = "the first request"
    NEXT_REQUEST = "the next request"
    REQUEST_HEAD = "the rest of a request head"
    REQUEST_BODY = "the rest of a request body"
    RESPONSE = "a response from the server"
    DELIVERY = "the client to read its response"
    CLOSING = "the client to close"


# No part of a request has arrived.
IDLE_PHASES = {Phase.FIRST_REQUEST, Phase.NEXT_REQUEST}
# A request occupies the server.
BUSY_PHASES = {Phase.REQUEST_BODY, Phase.RESPONSE, Phase.DELIVERY}
# Transferred bytes count as progress.
TRANSFER_PHASES = {Phase.REQUEST_BODY, Phase.DELIVERY, Phase.CLOSING}


class PhaseTimer:
    """Detects that a connection makes no progress in its phase.

    Args:
        limits: the timeouts.
        now: a monotonic clock, in seconds.

    Attributes:
        last_progress: time of the last progress, by `now`.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self._timeouts = {
            Phase.FIRST_REQUEST: limits.request_head_s,
            Phase.NEXT_REQUEST: limits.keep_alive_s,
            Phase.REQUEST_HEAD: limits.request_head_s,
            Phase.REQUEST_BODY: limits.request_body_s,
            Phase.RESPONSE: limits.response_s,
            Phase.DELIVERY: limits.request_body_s,
            Phase.CLOSING: limits.request_body_s,
        }
        self._now = now
        self._progress: object = None
        self.last_progress = now()

    def is_timed_out(self, phase: Phase, requests: int, transferred_bytes: int) -> bool:
        """True if the phase has made no progress for its timeout; call at least once a second.

        Args:
            phase: the current phase.
            requests: number of requests so far.
            transferred_bytes: number of bytes in both directions so far.
        """
        steps = transferred_bytes // MIN_PROGRESS_BYTES if phase in TRANSFER_PHASES else 0
        progress = phase, requests, steps
        if progress != self._progress:
            self._progress, self.last_progress = progress, self._now()
        return self._now() - self.last_progress > self._timeouts[phase]
