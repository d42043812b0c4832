"""The servers of d2serve, each with one archive, as `d2serve serve` runs them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from d2serve.errors import CommandError
from tests.serving.asgi_server import AsgiServer, running_asgi_server
from tests.serving.ray_server import RAY_PYTHON

if TYPE_CHECKING:
    from d2serve.servers.asgi.supervisor import Supervisor
    from d2serve.servers.torchserve.launcher.server import Server

ASGI, TORCHSERVE, RAY, RAY_PROXY = "asgi", "torchserve", "ray", "ray-proxy"
READY_WITHIN_S = 300.0


Handle = TypeVar("Handle")


@dataclass(frozen=True)
class Served(Generic[Handle]):
    """A running server.

    Attributes:
        handle: the server itself.
        url: the URL of its predictions.
        ready_s: time in seconds from its start until it was ready.
    """

    handle: Handle
    url: str
    ready_s: float


@contextmanager
def asgi(archive: Path, log_dir: Path) -> "Iterator[Served[Supervisor]]":
    """Serve an archive by the ASGI server on a free port while the block runs."""
    from d2serve.servers.asgi.config import ServerConfig
    from d2serve.servers.asgi.supervisor import running_server

    log_dir.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with (
        (log_dir / "asgi.log").open("ab") as log,
        running_server([archive], ServerConfig({}, port=0), log=log) as server,
    ):
        server.wait_until_ready(READY_WITHIN_S)
        ready_s = time.perf_counter() - started
        yield Served(server, f"{server.url}/predictions/{server.model_name}", ready_s)


@contextmanager
def torchserve(
    archive: Path, log_dir: Path, *, with_proxy: bool = True
) -> "Iterator[Served[Server]]":
    """Serve an archive by TorchServe while the block runs, by default behind its proxy."""
    from d2serve.servers.torchserve.launcher.server import running_server

    started = time.perf_counter()
    with running_server(
        archive, log_dir=log_dir, ready_within_s=READY_WITHIN_S, with_proxy=with_proxy
    ) as server:
        ready_s = time.perf_counter() - started
        yield Served(server, f"{server.url}/predictions/{server.model_name}", ready_s)


@contextmanager
def by_command(
    archive: Path,
    log_dir: Path,
    *,
    server: str,
    python: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served[AsgiServer]]:
    """Serve an archive by `d2serve serve` while the block runs, in the environment of `python`.
    Raises CommandError where the environment is not installed."""
    if not python.is_file():
        raise CommandError(f"{python} is missing; `make environments` installs it")
    started = time.perf_counter()
    with running_asgi_server(
        archive.resolve(), log_dir=log_dir, environment=environment, server=server, python=python
    ) as running:
        running.wait_until_ready(READY_WITHIN_S)
        ready_s = time.perf_counter() - started
        yield Served(running, f"{running.url}/predictions/{running.model_name}", ready_s)


# By the names of `d2serve serve --server`.
SERVERS: dict[str, Callable[[Path, Path], AbstractContextManager[Served[Any]]]] = {
    ASGI: asgi,
    TORCHSERVE: torchserve,
}
# In the environment that has Ray, so that all of them run with the same versions: Ray Serve with
# HAProxy, with its default proxy, and the ASGI server.
IN_RAY_ENVIRONMENT: dict[str, Callable[[Path, Path], AbstractContextManager[Served[Any]]]] = {
    ASGI: partial(by_command, server=ASGI, python=RAY_PYTHON),
    RAY: partial(by_command, server=RAY, python=RAY_PYTHON),
    RAY_PROXY: partial(
        by_command,
        server=RAY,
        python=RAY_PYTHON,
        environment={"RAY_SERVE_ENABLE_HA_PROXY": "0"},
    ),
}
