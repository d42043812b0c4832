"""The servers that hostile clients send to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from d2serve.servers.torchserve.launcher.server import running_server
from tests.serving.hostile.wire import Address

SERVERS = ("torchserve", "asgi")


@dataclass(frozen=True)
class Target:
    """A server that serves the bundled model.

    Attributes:
        name: one of SERVERS.
        url: base URL.
    """

    name: str
    url: str

    @property
    def address(self) -> Address:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port


@pytest.fixture(scope="session")
def proxied_url(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of TorchServe behind the reverse proxy."""
    logs = tmp_path_factory.mktemp("proxied")
    with running_server(shapes_mar, log_dir=logs, with_proxy=True) as server:
        yield server.url


@pytest.fixture(scope="session", params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    """A name in SERVERS."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, server_name: str) -> Target:
    """Each server in turn."""
    if server_name == "torchserve":
        return Target(server_name, request.getfixturevalue("proxied_url"))
    return Target(server_name, request.getfixturevalue("asgi").url)
