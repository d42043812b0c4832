"""The rows of the table-driven tests that each server gets.

The servers run the same core behind different platforms. Two of them get every row, and the others
a sample: what a platform changes, it changes for all rows of a test, or for rows in DIFFERENCES.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest

from tests.serving.contract.platforms import SERVERS, difference_of, row_of

FOLDER = "tests/serving/contract/"
ROUTES = ("/invocations", "/predictions/{model}")
EVERY_ROW = ("torchserve", "asgi")
# tests/servers/ray/test_serving.py has a token and --cors-origin: another Ray would start slowly.
NOT_GUARDED = ("ray",)
# The other servers get the first row of a test, and one in EVERY of its other rows.
EVERY = 4


def sampled(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests that are run; those of other folders are all run."""
    numbers: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        server, route = parameters.get("server_name"), parameters.get("route_url")
        if server is None or not item.nodeid.startswith(FOLDER):
            yield item
            continue
        if server in NOT_GUARDED and "guarded" in getattr(item, "fixturenames", ()):
            continue
        rows = numbers[f"{item.nodeid.partition('[')[0]} {server}"]
        row = row_of(server, item.name).replace(route or " ", "")
        number = rows.setdefault(row, len(rows))
        if route in (None, _route_of(server, number)) and _is_sent(server, item.name, number):
            yield item


def _route_of(server: str, row: int) -> str:
    """The route of a row: the servers with every row get each half of them on another one.

    test_routes.py sends requests to all routes of each server.
    """
    turn = EVERY_ROW.index(server) + row if server in EVERY_ROW else 0
    return ROUTES[turn % len(ROUTES)]


def _is_sent(server: str, test: str, row: int) -> bool:
    return (
        server in EVERY_ROW
        or row == 0
        or row % EVERY == [*SERVERS].index(server) % EVERY
        or difference_of(server, test) is not None
    )
