"""Limits for connections, and the events that they wait for."""

from dataclasses import dataclass
from enum import Enum, auto

from d2serve.messages import MAX_HEAD_BYTES


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits for connections.

    Attributes:
        head_bytes: maximum size of a request's head.
        head_s: maximum time in seconds of a request's head, from its first byte, and of the rest of
            a body that is dropped.
        delivery_s: time in seconds in which the client must read at least `delivery_bytes` of a
            response, else the connection is reset.
        delivery_bytes: see `delivery_s`.
        linger_s: time in seconds for which a closing connection reads on, so that the client gets
            its response before the connection is reset.
    """

    head_bytes: int = MAX_HEAD_BYTES
    head_s: float = 30.0
    delivery_s: float = 30.0
    delivery_bytes: int = 1024
    linger_s: float = 2.0

    @property
    def check_interval_s(self) -> float:
        """The interval at which a connection checks its times."""
        return min(1.0, self.head_s / 4, self.delivery_s / 4)


class Phase(Enum):
    """The event that a connection waits for."""

    FIRST_BYTE = auto()
    HEAD = auto()
    DELIVERY = auto()
    DROPPED_BODY = auto()
    NEXT_REQUEST = auto()
    OTHER = auto()


# A timeout in these phases closes the connection without a response.
UNANSWERABLE = (Phase.FIRST_BYTE, Phase.DROPPED_BODY)
