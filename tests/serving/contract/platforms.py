"""The servers of the contract tests, and what a server cannot do of the contract.

`DIFFERENCES` is the only list of exceptions. Its rows are expected to fail on their server, so that
a row that works must leave the list, and docs/api.md has its content as a table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Names of servers -> the fixtures that run them.
SERVERS = {
    "torchserve": "server",
    "toolkit": "container",
    "asgi": "asgi",
    "ray": "ray",
    "ray-container": "ray_container",
}
TITLES = {
    "torchserve": "TorchServe",
    "toolkit": "SageMaker's PyTorch container",
    "asgi": "ASGI server",
    "ray": "Ray Serve",
    "ray-container": "SageMaker's Ray container",
}
TORCHSERVE = ("torchserve", "toolkit")
# Packages of SageMaker.
CONTAINERS = ("toolkit", "ray-container")


@dataclass(frozen=True)
class Difference:
    """Something in the contract that some servers do not do.

    Attributes:
        servers: names of SERVERS.
        feature: what differs, for the documentation.
        reason: why the platform makes it impossible.
        rows: tests that fail there, as names with wildcards, without the name of the server.
        unsent: further ones, which are not run, because a row shows the same sooner.
    """

    servers: tuple[str, ...]
    feature: str
    reason: str
    rows: tuple[str, ...]
    unsent: tuple[str, ...] = ()

    def includes(self, name: str) -> bool:
        """Return whether a test fails, or is not run."""
        return any(fnmatchcase(name, row) for row in (*self.rows, *self.unsent))

    def is_sent(self, name: str) -> bool:
        """Return whether a test is run: a row of `rows` wins over one of `unsent`."""
        return any(fnmatchcase(name, row) for row in self.rows)


# SageMaker's Ray container: all requests pass AWS's adapter.
ADAPTER = ("ray-container",)
RAY_CONTAINER = (
    Difference(
        ADAPTER,
        "`POST /invocations` and `GET /ping` are the only routes; other paths and methods get a "
        "404 or 405 in another form, and `/ping` has no body",
        "AWS's adapter has no others",
        (
            "test_every_route_accepts_an_image[[]/[pmv]*",
            "test_an_option_from_each_source*",
            "test_an_unknown_option_or_value_is_a_400*",
            "test_the_protocols_own_parameters_*",
            "test_the_response_in_json*",
            "test_put_as_curl_sends_files*",
            "test_metadata_of_the_server*",
            "test_readiness_of_the_protocols*",
            "test_metrics_and_openapi*",
            "test_an_unknown_route_is_a_404*",
            "test_a_long_path_is_a_404*",
            "test_another_method_is_a_405*",
            "test_ping*",
            "test_a_ping_cannot_be_deleted*",
            "test_a_health_check_with_the_token_succeeds*",
        ),
        unsent=("test_*/predictions/{model}*", "test_*/models/{model}*"),
    ),
    Difference(
        ADAPTER,
        "`Server-Timing`, `X-Input-Range`, `X-Request-Id`, `Retry-After`, `Allow` and "
        "`WWW-Authenticate` are missing from responses",
        "AWS's adapter returns `Content-Type` and `X-Amzn-SageMaker-*` only; SageMaker does not "
        "pass others on to clients in any case",
        (
            "test_an_array[[]*",
            "test_every_response_carries_server_timing*",
            "test_responses_have_different_request_ids*",
            "test_a_rejected_request_is_logged_with_its_id*",
        ),
        unsent=("test_concurrent_clients_get_the_same_responses*",),
    ),
    Difference(
        ADAPTER,
        "the query, `X-D2serve-Timeout-Ms`, `Content-Encoding` and "
        "`Inference-Header-Content-Length` (binary tensors) have no effect; options go into the "
        "custom attributes, and into `parameters` of JSON",
        "AWS's adapter forwards `Content-Type`, `Accept` and `X-Amzn-SageMaker-*` only, as "
        "SageMaker does",
        (
            "test_input_options_from_the_query*",
            "test_the_query_of_every_route*",
            "test_a_deadline_that_has_passed*",
            "test_another_content_encoding_is_a_415*",
            "test_a_bad_request_is_rejected_with_its_error*content-encoding*",
            "test_tensors*binary-*",
            "test_several_files_in_one_binary_tensor*",
            "test_all_outputs_in_binary*",
            "test_requested_outputs_in_json_and_binary*",
            "test_broken_binary_tensors_are_a_400*",
        ),
    ),
    Difference(
        ADAPTER,
        "without a `Content-Type`, JSON lines are not recognized; without an `Accept`, "
        "`response_type` has no effect",
        "AWS's adapter sends `application/json` for both",
        (
            "test_json_lines_of_a_generic_type*-None*",
            "test_accept_takes_precedence_over_response_type*-None-*",
        ),
    ),
    Difference(
        ADAPTER,
        "large heads and slow requests are not rejected",
        "AWS's adapter reads requests before d2serve does; only SageMaker reaches it",
        (
            # It passes on X-Amzn-SageMaker-* alone, which may be too large for d2serve.
            *(
                f"test_a_large_head_is_a_431*{case}*"
                for case in ("cookie", "token", "many-headers", "query", "100-kB")
            ),
            "test_the_largest_head_is_the_same_on_every_server*",
        ),
        unsent=("test_requests_that_do_not_arrive_in_time_are_408s*",),
    ),
)

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
        CONTAINERS,
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
        CONTAINERS,
        "tokens have no effect",
        "SageMaker checks the AWS signature of each request, and only SageMaker reaches the "
        "container",
        ("test_a_request_without_the_token_is_a_401*",),
    ),
    *RAY_CONTAINER,
    Difference(
        ("ray",),
        "more than 101 header fields get a 400 in HTML",
        "HAProxy's limit, for which Ray has no setting",
        ("test_a_large_head_is_a_431*many-headers*",),
    ),
    Difference(
        ("ray",),
        "a request whose head does not arrive in time gets no 408",
        "Ray Serve's proxies wait for it, and Ray has no setting for a timeout; put a reverse "
        "proxy in front of them",
        ("test_requests_that_do_not_arrive_in_time*",),
    ),
)


def difference_of(server: str, test: str) -> Difference | None:
    """The difference that explains why a test fails on a server; None if it must pass."""
    name = row_of(server, test)
    return next(
        (each for each in DIFFERENCES if server in each.servers and each.includes(name)), None
    )


def row_of(server: str, test: str) -> str:
    """The name of a test without that of its server."""
    return test.replace(f"{server}-", "").replace(f"-{server}", "").replace(f"[{server}]", "")


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
