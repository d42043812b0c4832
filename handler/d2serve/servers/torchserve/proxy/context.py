"""The proxy as its connections see it."""

import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from d2serve.servers.body_memory import BodyMemory
from d2serve.servers.cors import Cors
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, ModelState
from d2serve.servers.torchserve.proxy.upstream import Address


class ProxyContext(Protocol):
    """The proxy state that connections need.

    Attributes:
        upstream: TorchServe's address.
        tls: the server's TLS configuration; None for plain HTTP.
        limits: limits for clients.
        cors: the web pages that may send requests.
        bodies: the request bodies that TorchServe holds.
        disconnects: receives the ids of clients that have disconnected.
    """

    upstream: Address
    tls: ssl.SSLContext | None
    limits: Limits
    cors: Cors
    bodies: BodyMemory
    disconnects: DisconnectTable

    @property
    def is_stopping(self) -> bool:
        """True if connections close after the current request."""

    def models(self) -> Mapping[str, ModelState]:
        """The models that TorchServe serves, by name."""

    def is_ready(self) -> bool:
        """True if any worker can take requests."""

    def check_capacity(self) -> None:
        """Raise a RequestError if a request in progress exceeds the limit."""

    def report(self, entry: dict[str, Any]) -> None:
        """Log and count a response that no worker has made."""
