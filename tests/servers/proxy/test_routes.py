"""The documents of the routes that TorchServe lacks, and the translation of its own errors."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from d2serve.outputs.open_inference_metadata import model_config, model_metadata, server_metadata
from d2serve.servers.torchserve.proxy.errors import translate_error
from tests.servers.proxy.running import CLOSE, Reply, RunningProxy, get, post, running_proxy

MODELS = (("shapes", "1.0"), ("shapes", "2.0"), ("a b", "3"))
UNHEALTHY = Reply("500 Internal Server Error", b'{"status": "Unhealthy"}')


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningProxy]:
    with running_proxy(models=MODELS) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared: RunningProxy) -> RunningProxy:
    shared.upstream.received.clear()
    shared.upstream.reply = Reply()
    shared.events()
    return shared


def torchserve_error(status: int, name: str) -> Reply:
    body = {"code": status, "type": name, "message": "at org.pytorch.serve"}
    return Reply(f"{status} Whatever", json.dumps(body).encode())


def send(proxy: RunningProxy, request: bytes) -> tuple[int, str, Any]:
    """The status, the head and the JSON body of a response."""
    response = proxy.send(request)
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head[9:12]), head.decode(), json.loads(body)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", server_metadata()),
        ("/v2?a=b", server_metadata()),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/shapes", model_metadata("shapes", ["1", "2"])),
        ("/v2/models/a%20b", model_metadata("a b", ["3"])),
        ("/v2/models/shapes/versions/2", model_metadata("shapes", ["1", "2"])),
        ("/v2/models/shapes/config", model_config("shapes")),
        ("/v2/models/shapes/ready", {"name": "shapes", "ready": True}),
        ("/v2/models/shapes/versions/1/ready", {"name": "shapes", "ready": True}),
        ("/v2/models/shapes/versions/1.0/ready", {"name": "shapes", "ready": True}),
        ("/v1/models/shapes", {"name": "shapes", "ready": True}),
        ("http://a/v1/models/shapes", {"name": "shapes", "ready": True}),
    ],
)
def test_the_proxy_responds_to_what_torchserve_lacks(
    proxy: RunningProxy, path: str, expected: dict[str, Any]
) -> None:
    status, head, body = send(proxy, get(path, CLOSE))
    assert (status, body) == (200, expected)
    assert "content-type: application/json" in head
    # TorchServe checks the token.
    asked = [(each.method, each.target) for each in proxy.upstream.received]
    assert asked == ([] if path == "/v2/health/live" else [("GET", "/ping")])
    [event] = proxy.events()
    assert (event["status"], event["code"], event["method"]) == (200, "ok", "GET")
    assert event["route"].startswith("/v")
    assert "shapes" not in event["route"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/v2/models/other", CLOSE), 404),
        (get("/v2/models/shapes/versions/7", CLOSE), 404),
        (get("/v2/models/shapes/versions/7/ready", CLOSE), 404),
        (get("/v2/repository/index", CLOSE), 404),
        (get("/v2/", CLOSE), 404),
        (get("http://a/v2/nothing", CLOSE), 404),
        (post(b"", CLOSE, path="/v2/health/live"), 405),
        (get("/v2/models/shapes/infer", CLOSE), 405),
        (get("/v2/health/live", "Upgrade: websocket", CLOSE), 400),
    ],
)
def test_errors_of_the_open_inference_protocol(
    proxy: RunningProxy, request_: bytes, status: int
) -> None:
    received, _, body = send(proxy, request_)
    assert received == status
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)


@pytest.mark.parametrize(
    ("request_", "allow"),
    [
        (get("/invocations", CLOSE), "POST, PUT"),
        (get("/invocations", CLOSE, method="DELETE"), "POST, PUT"),
        (get("/v1/models/shapes:predict", CLOSE), "POST, PUT"),
        (post(b"", CLOSE, path="/ping"), "GET, HEAD"),
        (get("/v1/models/shapes", CLOSE, method="PATCH"), "GET, HEAD"),
    ],
)
def test_another_method_is_a_405_that_names_the_accepted_ones(
    proxy: RunningProxy, request_: bytes, allow: str
) -> None:
    status, head, body = send(proxy, request_)
    assert (status, body["error"]["code"]) == (405, "method_not_allowed")
    assert f"\r\nAllow: {allow}\r\n" in head + "\r\n"
    assert proxy.upstream.received == []


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1", "/models", "/invocations/more", "//ping"])
def test_other_routes_are_not_forwarded(proxy: RunningProxy, path: str) -> None:
    status, _, body = send(proxy, get(path, CLOSE))
    assert (status, body["error"]["code"]) == (404, "not_found")
    assert proxy.upstream.received == []


@pytest.mark.parametrize(
    ("reply", "status", "code", "field"),
    [
        (
            torchserve_error(400, "InvalidKeyException"),
            401,
            "unauthorized",
            "WWW-Authenticate: Bearer",
        ),
        (torchserve_error(404, "ModelNotFoundException"), 404, "not_found", ""),
        (
            torchserve_error(405, "MethodNotAllowedException"),
            405,
            "method_not_allowed",
            "Allow: POST, PUT",
        ),
        (torchserve_error(503, "ServiceUnavailableException"), 503, "overloaded", "Retry-After: 1"),
        (torchserve_error(500, "InternalServerException"), 500, "internal", ""),
        (torchserve_error(507, "InternalServerException"), 500, "internal", ""),
        (torchserve_error(400, "BadRequestException"), 400, "bad_request", ""),
        (Reply("413 Request Entity Too Large", b""), 413, "too_large", ""),
    ],
)
def test_torchserves_own_errors_become_the_contracts(
    proxy: RunningProxy, reply: Reply, status: int, code: str, field: str
) -> None:
    proxy.upstream.reply = reply
    received, head, body = send(proxy, post(b"", CLOSE))
    assert (received, body["error"]["code"]) == (status, code)
    assert "org.pytorch" not in str(body)
    assert field in head
    [event] = proxy.events()
    assert (event["status"], event["code"]) == (status, code)
    _, _, open_inference = send(proxy, post(b"", CLOSE, path="/v2/models/shapes/infer"))
    assert isinstance(open_inference["error"], str)


def test_metadata_requires_torchserves_token(proxy: RunningProxy) -> None:
    proxy.upstream.reply = torchserve_error(400, "InvalidKeyException")
    for path in ("/ping", "/v2", "/v2/models/shapes", "/v2/health/ready", "/v1/models/shapes"):
        assert send(proxy, get(path, CLOSE))[0] == 401
    assert send(proxy, get("/v2/health/live", CLOSE))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[1]",
        b"not JSON",
        b"{}",
        b'{"error": {"code": "a", "message": "b"}}',
        b'{"code": 400, "type": "a", "message": "b", "more": 1}',
        b"[" * 10_000,
    ],
)
def test_other_error_bodies_are_not_replaced(body: bytes) -> None:
    assert translate_error(400, body) is None


def test_a_large_error_body_is_forwarded(proxy: RunningProxy) -> None:
    proxy.upstream.reply = Reply("400 Bad Request", b"a" * 100_000)
    assert proxy.send(post(b"", CLOSE)).endswith(b"a" * 100_000)


def test_an_unhealthy_torchserve_is_not_ready(proxy: RunningProxy) -> None:
    proxy.upstream.reply = UNHEALTHY
    assert proxy.send(get("/ping", CLOSE)).startswith(b"HTTP/1.1 500 ")
    for path in ("/v2/health/ready", "/v2/models/shapes/ready"):
        assert proxy.send(get(path, CLOSE)).startswith(b"HTTP/1.1 503 ")


def test_without_a_ready_worker_health_checks_fail() -> None:
    with running_proxy() as proxy:
        proxy.worker.release()
        for path in ("/ping", "/v2/health/ready", "/v2/models/shapes/ready", "/v1/models/shapes"):
            response = proxy.send(get(path, CLOSE))
            assert response.startswith(b"HTTP/1.1 503 "), path
            assert b"no worker is ready" in response
        assert proxy.send(get("/v2/health/live", CLOSE)).startswith(b"HTTP/1.1 200 ")
        proxy.worker.acquire_shared()
        assert proxy.send(get("/ping", CLOSE)).endswith(b"good")
