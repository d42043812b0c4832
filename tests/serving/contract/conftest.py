"""The picture that the rows send, and the two servers that they are sent to.

Each row goes to a TorchServe of `make serve` and to AWS's toolkit of `make sagemaker-local`.
"""

import pytest

from tests.serving.contract.rows import At
from tests.serving.served import Served

ROUTES = ("/invocations", "/predictions/{model}")


@pytest.fixture(scope="session", params=["server", "container"])
def served(request: pytest.FixtureRequest) -> Served:
    """Both ways to serve the bundled model."""
    running: Served = request.getfixturevalue(request.param)
    return running


@pytest.fixture(scope="session")
def at(served: Served) -> At:
    """A route's URL; `{model}` in it stands for the model's name there."""
    return lambda route: served.url + route.format(model=served.model_name)


@pytest.fixture(scope="session")
def url(at: At) -> str:
    return at("/invocations")


@pytest.fixture(params=ROUTES)
def route_url(request: pytest.FixtureRequest, at: At) -> str:
    """Both routes of a table-driven test."""
    return at(str(request.param))
