"""The servers of the contract tests: every request is sent to each of them."""

import pytest

from tests.serving.contract.platforms import SERVERS, difference_of
from tests.serving.contract.rows import At
from tests.serving.served import Served

ROUTES = ("/invocations", "/predictions/{model}")


@pytest.fixture(scope="session", params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    """A name in SERVERS."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest, server_name: str) -> Served:
    """The bundled model on a server."""
    running: Served = request.getfixturevalue(SERVERS[server_name])
    return running


@pytest.fixture(autouse=True)
def expect_differences(request: pytest.FixtureRequest) -> None:
    """Require that a test fails where the list of differences has it."""
    if "server_name" not in request.fixturenames:
        return
    difference = difference_of(request.getfixturevalue("server_name"), request.node.name)
    if difference:
        request.node.add_marker(
            pytest.mark.xfail(reason=difference.reason, raises=AssertionError, strict=True)
        )


@pytest.fixture(scope="session")
def at(served: Served) -> At:
    """Returns a route's URL; `{model}` is replaced by the model's name on that server."""
    return lambda route: served.url + route.format(model=served.model_name)


@pytest.fixture(scope="session")
def url(at: At) -> str:
    return at("/invocations")


@pytest.fixture(params=ROUTES)
def route_url(request: pytest.FixtureRequest, at: At) -> str:
    """Both routes of a table-driven test."""
    return at(str(request.param))
