"""The five ports that one TorchServe listens on."""

import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from random import SystemRandom

from d2serve.errors import CommandError

LOOPBACK = "127.0.0.1"
# Below the ephemeral ports, so that no outgoing connection takes a port before it is listened on.
FREE_PORTS = range(10_000, 32_000)
HTTP_APIS = ("inference", "management", "metrics")
GRPC_APIS = ("grpc_inference", "grpc_management")


@dataclass(frozen=True)
class Ports:
    """The ports of TorchServe's APIs.

    TorchServe always opens its two gRPC ports too, so two servers must not share them.
    """

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def free(cls) -> "Ports":
        """Five free ports, those of the HTTP APIs consecutive."""
        return cls(*_free_ports(5))

    @classmethod
    def starting_at(cls, port: int, address: str = LOOPBACK) -> "Ports":
        """Inference on `port`, management and metrics on the next two, gRPC on free ports.

        Raises:
            CommandError: the port is out of range, or one of the three is in use on this machine's
                loopback or on `address`.
        """
        if not 1 <= port <= 65533:
            raise CommandError(f"port {port} is out of range; use one from 1 to 65533")
        http = range(port, port + 3)
        for number in http:
            if not (_is_free(number) and _is_free(number, address)):
                raise CommandError(
                    f"port {number} is in use (the server needs {port} to {port + 2}); "
                    f"use another, such as --port {port + 1000 if port < 64000 else 8080}"
                )
        return cls(*http, *_free_ports(2, besides=http))

    def behind_proxy(self) -> "Ports":
        """The same ports with a free one for inference, so that a proxy can listen on this one."""
        [internal] = _free_ports(1, besides=asdict(self).values())
        return replace(self, inference=internal)

    def as_properties(self) -> dict[str, str]:
        """The ports as entries of config.properties."""
        numbers = asdict(self)
        http = {f"{name}_address": f"http://{LOOPBACK}:{numbers[name]}" for name in HTTP_APIS}
        grpc = {f"{name}_port": str(numbers[name]) for name in GRPC_APIS}
        return http | grpc


def family_of(address: str) -> socket.AddressFamily:
    """The address family of an IP address: IPv4 or IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_free(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket(family_of(address)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def _free_ports(count: int, besides: Collection[int] = ()) -> range:
    """Consecutive free ports, chosen at random so that concurrent callers get different ones."""
    while True:
        first = SystemRandom().choice(FREE_PORTS)
        ports = range(first, first + count)
        if all(port not in besides and _is_free(port) for port in ports):
            return ports
