"""Servers whose operator has set a token."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from d2serve.servers.torchserve.launcher.network import Exposure, read_token
from d2serve.servers.torchserve.launcher.server import running_server
from tests.serving.asgi_server import running_asgi_server
from tests.serving.ray_server import running_ray_server

TOKEN = "a-token-of-the-operator"
ORIGIN, LOCAL = "https://example.org", "http://localhost:3000"


@dataclass(frozen=True)
class Guarded:
    """A server and its token."""

    url: str
    model_name: str
    token: str

    def at(self, route: str) -> str:
        return self.url + route.format(model=self.model_name)


@contextmanager
def guarded_torchserve(archive: Path, folder: Path, exposure: Exposure) -> Iterator[Guarded]:
    """TorchServe, which makes a token of its own."""
    with running_server(archive, log_dir=folder, exposure=exposure, with_proxy=True) as running:
        token = read_token(running.key_file, "inference")
        assert token
        yield Guarded(running.url, running.model_name, token)


@contextmanager
def guarded_asgi(
    archive: Path,
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Guarded]:
    """The ASGI server; the arguments or the environment give it TOKEN."""
    with running_asgi_server(
        archive, log_dir=folder, arguments=arguments, environment=environment
    ) as server:
        server.wait_until_ready()
        yield Guarded(server.url, server.model_name, TOKEN)


@contextmanager
def guarded_ray(archive: Path, folder: Path, arguments: Sequence[str]) -> Iterator[Guarded]:
    """Ray Serve; the environment gives it TOKEN."""
    environment = {"D2SERVE_SERVER_TOKEN": TOKEN}
    with running_ray_server(
        archive, log_dir=folder, arguments=arguments, environment=environment
    ) as server:
        yield Guarded(server.url, server.model_name, TOKEN)
