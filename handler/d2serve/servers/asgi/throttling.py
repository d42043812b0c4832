"""Throttle the clients whose connections keep failing, by address.

A connection that fails costs the interpreter lock as much as a request that is served. Clients that
open one after the other would slow down all others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

# An owner of IPv6 addresses has at least this many bits of them.
IPV6_PREFIX_BITS = 64


@dataclass(frozen=True)
class ThrottleLimits:
    """Limits of one client.

    Attributes:
        interval_s: time in seconds that each failure takes to be forgotten, and at least between
            the connections of a throttled client.
        failures: number of failures, not forgotten yet, from which a client is throttled.
        pause_s: longest pause in seconds of a connection that waits alone. The pause is the time
            that the failures beyond `failures` take to be forgotten.
        memory_s: maximum time in seconds until all failures are forgotten.
        clients: maximum number of clients that are remembered.
    """

    interval_s: float = 0.05
    failures: int = 20
    pause_s: float = 0.5
    memory_s: float = 30.0
    clients: int = 4096


class Client:
    """An address that connects, with its failures as the generic cell rate algorithm counts them.

    Args:
        limits: the limits.
        clock: returns the time in seconds.
        is_trusted: whether it is never limited, as a reverse proxy for many clients.

    Attributes:
        is_trusted: see `is_trusted`.
        connections: number of its open connections.
        waiting: number of those that have not been read yet.
    """

    def __init__(
        self, limits: ThrottleLimits, clock: Callable[[], float], *, is_trusted: bool = False
    ) -> None:
        self.is_trusted = is_trusted
        self.connections = 0
        self.waiting = 0
        self._limits, self._clock = limits, clock
        self._forgotten_at = clock()

    def pause_s(self) -> float:
        """The time in seconds after which to read from a new connection."""
        allowed_s = self._limits.failures * self._limits.interval_s
        excess_s = self._forgotten_at - self._clock() - allowed_s
        if self.is_trusted or excess_s <= 0:
            return 0.0
        return min(excess_s, self._limits.pause_s) + self.waiting * self._limits.interval_s

    def record_failure(self) -> None:
        """Record a connection that did not end as HTTP requires."""
        now = self._clock()
        forgotten_at = max(self._forgotten_at, now) + self._limits.interval_s
        self._forgotten_at = min(forgotten_at, now + self._limits.memory_s)

    def record_response(self) -> None:
        """Record a complete request and response, which make up for a failure.

        An address that many clients share is not throttled for a few of them.
        """
        self._forgotten_at -= self._limits.interval_s


class Clients:
    """The clients of a server.

    Args:
        is_trusted: returns whether an address is that of a reverse proxy, which is never limited.
        limits: of each client.
        clock: returns the time in seconds.

    Examples:
        >>> clients = Clients(lambda address: address == "10.0.0.1", clock=lambda: 0.0)
        >>> for _ in range(22):
        ...     clients.of("192.0.2.7").record_failure()
        >>> round(clients.of("192.0.2.7").pause_s(), 3), clients.of("192.0.2.8").pause_s()
        (0.1, 0.0)
    """

    def __init__(
        self,
        is_trusted: Callable[[str], bool] = lambda _: False,
        limits: ThrottleLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_trusted = is_trusted
        self._limits, self._clock = limits or ThrottleLimits(), clock
        self._trusted = Client(self._limits, clock, is_trusted=True)
        self._clients: dict[str, Client] = {}

    def of(self, address: str) -> Client:
        """The client of an address; a trusted one without an address, as for a Unix socket."""
        if not address or self._is_trusted(address):
            return self._trusted
        key = key_of(address)
        client = self._clients.pop(key, None) or Client(self._limits, self._clock)
        self._clients[key] = client  # the most recent is the last
        if len(self._clients) > self._limits.clients:
            self._forget_oldest()
        return client

    def _forget_oldest(self) -> None:
        """Forget the client that connected least recently, of those without a connection."""
        for key, client in self._clients.items():
            if not client.connections:
                del self._clients[key]
                return


@lru_cache(maxsize=4096)
def key_of(address: str) -> str:
    """The part of an address that identifies its owner.

    Examples:
        >>> key_of("192.0.2.7"), key_of("::ffff:192.0.2.7"), key_of("2001:db8::1:2:3:4%eth0")
        ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), IPV6_PREFIX_BITS), strict=False))
