"""The five ports that one TorchServe listens on."""

import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from scripts.errors import CommandError

LOOPBACK = "127.0.0.1"


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
        """Five ports that nobody listens on."""
        return cls(*_free_ports(5))

    @classmethod
    def starting_at(cls, port: int, address: str = LOOPBACK) -> "Ports":
        """Inference on `port` of an address, management and metrics on the next two, gRPC on free
        ones."""
        if not 1 <= port <= 65533:
            raise CommandError(f"port {port} is out of range; take one of 1 to 65533")
        for number in range(port, port + 3):
            if not (_is_free(number) and _is_free(number, address)):
                raise CommandError(
                    f"port {number} is in use ({port} to {port + 2} are needed); "
                    f"choose others, such as PORT={port + 1000 if port < 64000 else 8080}"
                )
        return cls(port, port + 1, port + 2, *_free_ports(2))

    def as_properties(self) -> dict[str, str]:
        """The lines of config.properties that say where to listen."""
        numbers = asdict(self)
        http = {f"{name}_address": f"http://{LOOPBACK}:{numbers[name]}" for name in HTTP_APIS}
        grpc = {f"{name}_port": str(numbers[name]) for name in GRPC_APIS}
        return http | grpc


HTTP_APIS = ("inference", "management", "metrics")
GRPC_APIS = ("grpc_inference", "grpc_management")


def _is_free(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((LOOPBACK, 0))
        return [listener.getsockname()[1] for listener in listeners]
