"""What clients may take of a front door: how many connections, and how long each step."""

from dataclasses import dataclass, replace

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
