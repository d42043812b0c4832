"""The two servers of the contract tests.

Each request is sent to TorchServe as `d2serve serve` runs it, and to AWS's toolkit as `d2serve
sagemaker-local` runs it.
"""

import pytest

from tests.serving.contract.rows import At
from tests.serving.served import Served

ROUTES = ("/invocations", "/predictions/{model}")


@pytest.fixture(scope="session", params=["server", "container"])
def served(request: pytest.FixtureRequest) -> Served:
    """The bundled model on both servers."""
    running: Served = request.getfixturevalue(request.param)
    return running


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
