"""What connections know of the front door that they came in by."""

import ssl
from typing import Protocol

from handler.lifecycle.departures import Departures
from handler.lifecycle.limits import Limits
from handler.lifecycle.listening import Address


class House(Protocol):
    """One front door.

    Attributes:
        upstream: where TorchServe listens.
        tls: what it proves its name with; None for plain HTTP.
        limits: what clients may take.
        departures: where it is noted who has gone.
    """

    upstream: Address
    tls: ssl.SSLContext | None
    limits: Limits
    departures: Departures

    def is_ready(self) -> bool:
        """Whether any worker can take requests."""

    def check_room(self, first_line: bytes) -> None:
        """Raises a RequestError where a request that begins so is one too many."""
