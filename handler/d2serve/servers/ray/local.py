"""A Ray of one machine with Ray Serve, which ends with the process that starts it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2serve.errors import D2ServeError, ServerError
from d2serve.servers.asgi.config import TOKEN_VARIABLE
from d2serve.servers.asgi.listener import open_listener
from d2serve.servers.asgi.model_folders import unpack_models
from d2serve.servers.exposure import LOOPBACK, LOOPBACK_OF, url_host
from d2serve.servers.ray import build
from d2serve.servers.ray.environment import ray_environment, uses_haproxy
from d2serve.servers.ray.private_ray import short_folder, start_ray
from d2serve.servers.ray.watchdog import watched
from d2serve.serving.cpu import available_cpus

# Requests and responses pass through it only with Ray's default proxy.
OBJECT_STORE_BYTES = 256_000_000
KEEP_ALIVE_S = 75
POLL_S = 1.0


@dataclass(frozen=True)
class LocalConfig:
    """The configuration of a server on this machine.

    Attributes:
        address: IP address to listen on.
        port: TCP port; 0 chooses a free one.
        name: name of the only model; empty to name models after their archives.
        cors_origins: origins whose web pages may send requests.
        forward_timeout_s: a replica is replaced when a forward pass takes longer, in seconds.
        playground: whether `GET /` is the playground page.
    """

    address: str = LOOPBACK
    port: int = 8080
    name: str = ""
    cors_origins: tuple[str, ...] = ()
    forward_timeout_s: float = 120.0
    playground: bool = True


@dataclass(frozen=True)
class LocalServer:
    """A running server.

    Attributes:
        names: the models' names.
        url: base URL of Ray Serve, from this machine.
        home: a folder that exists while the server runs.
        has_haproxy: whether HAProxy runs, instead of Ray's default proxy.
    """

    names: tuple[str, ...]
    url: str
    home: Path
    has_haproxy: bool

    def url_of(self, name: str) -> str:
        """Base URL of a model."""
        return self.url + _prefix(name, self.names).rstrip("/")

    def wait(self) -> None:
        """Wait for an exception such as KeyboardInterrupt.

        Raises:
            ServerError: Ray has ended.
        """
        from ray import serve

        while True:
            try:
                serve.status()
            except Exception as error:
                raise ServerError(f"Ray has ended: {error}") from error
            time.sleep(POLL_S)


@contextmanager
def running_server(
    models: Sequence[Path], config: LocalConfig, token: str = ""
) -> Iterator[LocalServer]:
    """Serve models with a Ray of their own while the `with` block runs.

    Args:
        models: archives (.mar), packages (.tar.gz), or folders with their content.
        config: the configuration.
        token: the token that clients need; empty for none.

    Raises:
        ArchiveError: an archive cannot be unpacked.
        CommandError: the address or port cannot be used, or two models have one name.
        ServerError: a model cannot be loaded.
        ModuleNotFoundError: Ray is not installed.
    """
    with short_folder("d2s-") as home, watched(home):
        with open_listener(config.address, config.port) as listener:
            port: int = listener.getsockname()[1]
        archives = home / "models"
        archives.mkdir()
        folders = unpack_models(models, archives, config.name)
        has_haproxy = uses_haproxy()
        variables = ray_environment(home, has_haproxy)
        os.environ.update({**variables, **os.environ, TOKEN_VARIABLE: token})
        with _running_ray(home, config, port, len(folders)):
            _deploy(folders, config)
            host = url_host(LOOPBACK_OF.get(config.address, config.address))
            yield LocalServer(tuple(folders), f"http://{host}:{port}", home, has_haproxy)


@contextmanager
def _running_ray(home: Path, config: LocalConfig, port: int, models: int) -> Iterator[None]:
    """Run Ray and Ray Serve."""
    import ray
    from ray import serve

    try:
        cpus = max(available_cpus(), models)
        start_ray(home, cpus=cpus, object_store_bytes=OBJECT_STORE_BYTES)
        options = {"host": config.address, "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S}
        serve.start(http_options=options)
        yield
        with suppress(Exception):  # Ray may have ended already
            _drain()
            serve.shutdown()
    finally:
        ray.shutdown()


def _drain() -> None:
    """Wait until the replicas have finished the requests in progress; the proxy runs meanwhile."""
    from ray import serve

    names = list(serve.status().applications)
    for waits in (False, True):
        for name in names:
            serve.delete(name, _blocking=waits)


def _deploy(folders: Mapping[str, str], config: LocalConfig) -> None:
    """Deploy the models, each as an application.

    Raises:
        SettingsError: a setting is not valid.
        ServerError: a model cannot be loaded.
    """
    import ray
    from ray import serve

    gpus = ray.cluster_resources().get("GPU", 0)
    shared: dict[str, Any] = {
        "num_cpus": max(1, available_cpus() // len(folders)),
        "num_gpus": min(1, gpus / len(folders)),
        "cors_origins": list(config.cors_origins),
        "forward_timeout_s": config.forward_timeout_s,
        "playground": config.playground,
        # The start waits for the replicas, which process test images themselves.
        "check_model": False,
    }
    for name, folder in folders.items():
        application = build({"archive": folder, "name": name, **shared})
        try:
            serve.run(application, name=name, route_prefix=_prefix(name, tuple(folders)))
        except D2ServeError:
            raise
        except RuntimeError as error:
            [*_, cause] = str(error).strip().splitlines() or [""]
            raise ServerError(f"model {name} cannot be loaded: {cause}") from error


def _prefix(name: str, names: Sequence[str]) -> str:
    """The route prefix: `/` for a single model."""
    return "/" if len(names) == 1 else f"/{name}"
