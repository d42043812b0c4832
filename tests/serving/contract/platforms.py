"""The servers of the contract tests, and what a server cannot do of the contract.

`DIFFERENCES` is the only list of exceptions. Its rows are expected to fail on their server, so that
a row that works must leave the list, and docs/api.md has its content as a table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Names of servers -> the fixtures that run them.
SERVERS = {"torchserve": "server", "toolkit": "container", "asgi": "asgi"}
TITLES = {
    "torchserve": "TorchServe",
    "toolkit": "SageMaker's PyTorch container",
    "asgi": "ASGI server",
}
TORCHSERVE = ("torchserve", "toolkit")


@dataclass(frozen=True)
class Difference:
    """Something in the contract that some servers do not do.

    Attributes:
        servers: names of SERVERS.
        feature: what differs, for the documentation.
        reason: why the platform makes it impossible.
        rows: tests that fail there, as names with wildcards, without the name of the server.
    """

    servers: tuple[str, ...]
    feature: str
    reason: str
    rows: tuple[str, ...]


DIFFERENCES = (
    Difference(
        TORCHSERVE,
        "`GET /metrics` and `GET /openapi.json` are on other ports or not available",
        "TorchServe publishes metrics on a port of its own, and does not know d2serve's document",
        ("test_metrics_and_openapi*",),
    ),
    Difference(
        ("torchserve",),
        "on a server with tokens, health checks need the token as well",
        "TorchServe requires it for all of its routes",
        ("test_a_health_check_needs_no_token*",),
    ),
    Difference(
        ("toolkit",),
        "`--cors-origin` does not exist: web pages cannot use an endpoint directly",
        "only SageMaker reaches the container, and it passes on neither preflight requests nor "
        "these headers of responses",
        (
            "test_a_preflight_request_needs_no_token*",
            "test_the_methods_of_scripts*",
            "test_another_origin_is_not_permitted*",
            "test_a_script_can_read_*",
        ),
    ),
    Difference(
        ("toolkit",),
        "tokens have no effect",
        "SageMaker checks the AWS signature of each request, and only SageMaker reaches the "
        "container",
        ("test_a_request_without_the_token_is_a_401*",),
    ),
)


def difference_of(server: str, test: str) -> Difference | None:
    """The difference that explains why a test fails on a server; None if it must pass."""
    name = test.replace(f"{server}-", "").replace(f"-{server}", "").replace(f"[{server}]", "")
    return next(
        (
            each
            for each in DIFFERENCES
            if server in each.servers and any(fnmatchcase(name, row) for row in each.rows)
        ),
        None,
    )


def supports(server: str, test: str) -> bool:
    """Return whether a server can do what a test requires."""
    return difference_of(server, test) is None


def as_table() -> Iterator[str]:
    """Lines of the table in docs/api.md."""
    yield "| server | difference | reason |"
    yield "| --- | --- | --- |"
    for each in DIFFERENCES:
        servers = ", ".join(TITLES[server] for server in each.servers)
        yield f"| {servers} | {each.feature} | {each.reason} |"
