"""The servers of the contract tests; sampling.py decides which gets which requests.

They stop after these tests: each Ray takes a tenth of a core while it is idle.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from d2serve.aws import ray_image
from d2serve.aws.local_container import Container
from d2serve.aws.ray_container import running_ray_container
from d2serve.servers.sagemaker.application import REPLICAS_VARIABLE
from tests.serving.asgi_server import AsgiServer
from tests.serving.contract.guarded import GUARDED, TOKEN, Guarded
from tests.serving.contract.platforms import SERVERS, difference_of, row_of
from tests.serving.contract.rows import At
from tests.serving.contract.sampling import ROUTES, sampled
from tests.serving.ray_server import running_ray_server
from tests.serving.served import Served
from tests.serving.traffic import predictions_of

# Beyond the servers' timeout of 30 s; and in which a response is read that is there by then.
UNFINISHED_S, READ_S = 60, 5
# Also where a header or key of a response is missing, or its body is not what a test reads.
FAILURES = (AssertionError, KeyError, ValueError, OSError)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the rows that a server does not get."""
    items[:] = sampled(items)


@pytest.fixture(scope="package", params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    """A name in SERVERS."""
    name: str = request.param
    return name


@pytest.fixture(scope="package")
def served(request: pytest.FixtureRequest, server_name: str) -> Served:
    """The bundled model on a server."""
    running: Served = request.getfixturevalue(SERVERS[server_name])
    return running


@pytest.fixture(scope="package")
def unfinished(served: Served) -> Iterator[Callable[[], Sequence[socket.socket]]]:
    """Returns connections with an incomplete head and an incomplete body, when they are timed out
    at the latest `UNFINISHED_S` after the first test."""
    target = urlsplit(f"{served.url}/invocations")
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n"
    clients: list[socket.socket] = []
    due = time.monotonic() + UNFINISHED_S

    def timed_out() -> Sequence[socket.socket]:
        for client in clients:
            client.settimeout(max(READ_S, due - time.monotonic()))
        return clients

    with ExitStack() as stack:
        for sent in (head, f"{head}Content-Length: 9\r\n\r\nabc"):
            address = (target.hostname or "", target.port or 80)
            clients.append(stack.enter_context(socket.create_connection(address, UNFINISHED_S)))
            clients[-1].sendall(sent.encode())
        yield timed_out


@pytest.fixture(autouse=True)
def begin_waiting(request: pytest.FixtureRequest) -> None:
    """Let the requests that do not arrive in time wait beside the first tests of each server."""
    if "served" in request.fixturenames:
        request.getfixturevalue("unfinished")


@pytest.fixture(scope="package")
def ray(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    """The bundled model on Ray Serve of this machine, with HAProxy."""
    with running_ray_server(shapes_mar, log_dir=tmp_path_factory.mktemp("ray-logs")) as running:
        yield running


@pytest.fixture(scope="package")
def ray_container(
    ray_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """AWS's Ray container with the bundled model, configured as by `d2serve deploy`."""
    log_dir = tmp_path_factory.mktemp("ray-container-logs")
    given = {REPLICAS_VARIABLE: "1", "D2SERVE_MAX_REQUEST_BYTES": "100000000"}
    environment = ray_image.container_environment("transform", given)
    with running_ray_container(ray_package, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(within_s=300)
        yield running


@pytest.fixture(scope="package")
def guarded(
    request: pytest.FixtureRequest,
    server_name: str,
    shapes_mar: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    """A server with a token and --cors-origin, as far as it has them."""
    if server_name in GUARDED:
        folder = tmp_path_factory.mktemp("guarded")
        with GUARDED[server_name](shapes_mar, folder) as running:
            yield running
    else:
        served: Served = request.getfixturevalue("served")
        yield Guarded(served.url, served.model_name, TOKEN)


@pytest.fixture(autouse=True)
def expect_differences(request: pytest.FixtureRequest) -> None:
    """Require that a test fails where the list of differences has it."""
    if "server_name" not in request.fixturenames:
        return
    server, test = request.getfixturevalue("server_name"), request.node.name
    if difference := difference_of(server, test):
        is_sent = difference.is_sent(row_of(server, test))
        request.node.add_marker(
            pytest.mark.xfail(run=is_sent, reason=difference.reason, raises=FAILURES, strict=True)
        )


@pytest.fixture(scope="package")
def at(served: Served) -> At:
    """Returns a route's URL; `{model}` is replaced by the model's name on that server."""
    return lambda route: served.url + route.format(model=served.model_name)


@pytest.fixture(scope="package")
def url(at: At) -> str:
    return at("/invocations")


@pytest.fixture(scope="package")
def prediction_of(url: str) -> Callable[["np.ndarray[Any, Any]"], dict[str, Any]]:
    return predictions_of(url)


@pytest.fixture(params=ROUTES)
def route_url(request: pytest.FixtureRequest, at: At) -> str:
    """A route of a table-driven test."""
    return at(str(request.param))
