"""Servers for unmodified clients, and the response that all clients must get."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.serving.asgi_server import AsgiServer, running_asgi_server
from tests.serving.clients.conversation import Conversation
from tests.serving.served import Served

# Names of servers -> the fixtures that run them.
SERVERS = {"torchserve": "server", "asgi": "asgi"}


@pytest.fixture(scope="session")
def server_name(request: pytest.FixtureRequest) -> str:
    """A name in SERVERS, from the test's parameters."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def protocol(request: pytest.FixtureRequest) -> str:
    """The protocol between the client and the server, from the test's parameters."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def grpc_address() -> str:
    return f"{LOOPBACK}:{Ports.free().inference}"


@pytest.fixture(scope="session")
def asgi(
    shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory, grpc_address: str
) -> Iterator[AsgiServer]:
    """The bundled model on the ASGI server, over HTTP and gRPC."""
    arguments = ("--grpc-port", grpc_address.rpartition(":")[2])
    log_dir = tmp_path_factory.mktemp("asgi-logs")
    with running_asgi_server(shapes_mar, log_dir=log_dir, arguments=arguments) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest, server_name: str) -> Served:
    """The bundled model on a server."""
    running: Served = request.getfixturevalue(SERVERS[server_name])
    return running


@pytest.fixture(scope="session")
def url(served: Served) -> str:
    return f"{served.url}/invocations"


@pytest.fixture(scope="session")
def image(image: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """UInt8[H, W, 3] RGB, small enough for nested lists."""
    return np.ascontiguousarray(image[::2, ::2])


@pytest.fixture(scope="session")
def image_files(
    image: "np.ndarray[Any, Any]", tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The image as PNG and as NPY."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(image).save(folder / "image.png")
    np.save(folder / "image.npy", image)
    return folder / "image.png", folder / "image.npy"


@pytest.fixture(scope="session")
def converse(
    repo_root: Path,
    served: Served,
    protocol: str,
    grpc_address: str,
    image_files: tuple[Path, Path],
) -> Callable[[str], Conversation]:
    """Runs a program of this folder, which prints the outcomes of its cases."""

    def run(program: str) -> Conversation:
        address = {"http": served.url.partition("://")[2], "grpc": grpc_address}
        target = address.get(protocol, served.url)
        return Conversation.of(
            repo_root, program, protocol, target, served.model_name, *map(str, image_files)
        )

    return run


@pytest.fixture(scope="session")
def expected(
    prediction_of: Callable[["np.ndarray[Any, Any]"], dict[str, Any]], image: "np.ndarray[Any, Any]"
) -> dict[str, Any]:
    """The response of `/invocations` to the image."""
    prediction = prediction_of(image)
    assert prediction["names"]
    return prediction
