"""The five ports that one TorchServe listens on."""

import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from random import SystemRandom

from d2serve.errors import CommandError

LOOPBACK = "127.0.0.1"
# Below those that systems give to connections, so that none takes a port before it is listened on.
CHOICE = range(10_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """TorchServe always opens its two gRPC ports too, so two servers must not share them."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def free(cls) -> "Ports":
        """Five ports that nobody listens on, those of the HTTP APIs in a row."""
        return cls(*_free_ports(5))

    @classmethod
    def starting_at(cls, port: int, address: str = LOOPBACK) -> "Ports":
        """Inference on `port` of an address, management and metrics on the next two, gRPC on free
        ones."""
        if not 1 <= port <= 65533:
            raise CommandError(f"port {port} is out of range; take one of 1 to 65533")
        http = range(port, port + 3)
        for number in http:
            if not (_is_free(number) and _is_free(number, address)):
                raise CommandError(
                    f"port {number} is in use ({port} to {port + 2} are needed); "
                    f"choose others, such as PORT={port + 1000 if port < 64000 else 8080}"
                )
        return cls(*http, *_free_ports(2, besides=http))

    def behind_a_door(self) -> "Ports":
        """The same but for a free port for inference, so that a front door can have this one."""
        [inner] = _free_ports(1, besides=asdict(self).values())
        return replace(self, inference=inner)

    def as_properties(self) -> dict[str, str]:
        """The lines of config.properties that say where to listen."""
        numbers = asdict(self)
        http = {f"{name}_address": f"http://{LOOPBACK}:{numbers[name]}" for name in HTTP_APIS}
        grpc = {f"{name}_port": str(numbers[name]) for name in GRPC_APIS}
        return http | grpc


def family_of(address: str) -> socket.AddressFamily:
    """IPv4 or IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


HTTP_APIS = ("inference", "management", "metrics")
GRPC_APIS = ("grpc_inference", "grpc_management")


def _is_free(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket(family_of(address)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def _free_ports(count: int, besides: Collection[int] = ()) -> range:
    """So many in a row, at random: who else looks for ports at this moment finds others."""
    while True:
        first = SystemRandom().choice(CHOICE)
        ports = range(first, first + count)
        if all(port not in besides and _is_free(port) for port in ports):
            return ports
