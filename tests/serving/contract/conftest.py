"""The picture that the rows send, and both routes of a table-driven test."""

from pathlib import Path

import pytest

from scripts.torchserve import Server
from tests.serving.contract.rows import Array
from tests.serving.traffic import pixels

ROUTES = ("/invocations", "/predictions/shapes")


@pytest.fixture(params=ROUTES)
def route_url(request: pytest.FixtureRequest, server: Server) -> str:
    """Both routes of a table-driven test."""
    return server.url + str(request.param)


@pytest.fixture(scope="session")
def picture(png: Path) -> Array:
    """UInt8[H, W, 3] RGB, in which the bundled model finds something."""
    return pixels(png)
