"""The servers that a soak can run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from bench import served
from bench.processes import ready_workers
from d2serve.servers.asgi.supervisor import Supervisor
from d2serve.servers.torchserve.launcher.processes import living_members


@dataclass(frozen=True)
class Target:
    """A running server.

    Attributes:
        url: base URL.
        model_name: name of the model.
        members: returns its processes.
        ready: returns the ids of those that run the model, as far as they are ready.
        worker_has_connections: whether clients lose their connections when one of those ends.
    """

    url: str
    model_name: str
    members: Callable[[], list[psutil.Process]]
    ready: Callable[[], set[int]]
    worker_has_connections: bool = False


@contextmanager
def torchserve(model: Path, logs: Path) -> Iterator[Target]:
    """TorchServe behind its proxy."""
    with served.torchserve(model, logs) as running:
        server = running.handle
        members = partial(living_members, server.process.pid)
        yield Target(server.url, server.model_name, members, partial(ready_workers, server))


@contextmanager
def asgi(model: Path, logs: Path) -> Iterator[Target]:
    """The ASGI server, whose supervisor runs in this process."""
    with served.asgi(model, logs) as running:
        server = running.handle
        # A restart replaces the process, which heads a group of its own.
        yield Target(
            server.url,
            server.model_name,
            lambda: living_members(server.process.pid),
            lambda: _ready_process(server),
            worker_has_connections=True,
        )


SERVERS: Mapping[str, Callable[[Path, Path], AbstractContextManager[Target]]] = {
    served.TORCHSERVE: torchserve,
    served.ASGI: asgi,
}


def _ready_process(server: Supervisor) -> set[int]:
    process = server.process.pid
    try:
        response = httpx.get(f"{server.url}/ping", timeout=1, trust_env=False)
    except httpx.TransportError:
        return set()
    return {process} if response.is_success and server.process.pid == process else set()
