"""Servers whose operator has set a token, and permits web pages of other origins."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from d2serve.servers.exposure import ANY
from d2serve.servers.torchserve.launcher.network import Exposure, read_token
from d2serve.servers.torchserve.launcher.server import running_server
from tests.serving.asgi_server import running_asgi_server

TOKEN = "a-token-of-the-operator"
ORIGINS = (ORIGIN, LOCAL) = ("https://example.org", "http://localhost:3000")
CORS_OPTIONS = tuple(f"--cors-origin={origin}" for origin in ORIGINS)


@dataclass(frozen=True)
class Guarded:
    """A server and its token."""

    url: str
    model_name: str
    token: str

    def at(self, route: str) -> str:
        return self.url + route.format(model=self.model_name)


@contextmanager
def guarded_torchserve(archive: Path, folder: Path) -> Iterator[Guarded]:
    """TorchServe, which makes a token of its own."""
    exposure = Exposure(ANY, cors_origins=ORIGINS)
    with running_server(archive, log_dir=folder, exposure=exposure, with_proxy=True) as running:
        token = read_token(running.key_file, "inference")
        assert token
        yield Guarded(running.url, running.model_name, token)


@contextmanager
def guarded_asgi(archive: Path, folder: Path) -> Iterator[Guarded]:
    """The ASGI server; a file gives it TOKEN."""
    file = folder / "token"
    file.write_text(TOKEN)
    arguments = [*CORS_OPTIONS, "--token-file", str(file)]
    with running_asgi_server(archive, log_dir=folder, arguments=arguments) as server:
        server.wait_until_ready()
        yield Guarded(server.url, server.model_name, TOKEN)


# Names of servers -> how they run, with an archive and a folder for their files.
GUARDED: dict[str, Callable[[Path, Path], AbstractContextManager[Guarded]]] = {
    "torchserve": guarded_torchserve,
    "asgi": guarded_asgi,
}
