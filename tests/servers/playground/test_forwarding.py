"""The application that forwards, in front of a fake server."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from d2serve.client.transport import Reply
from d2serve.errors import ClientError, PredictionError, UnreachableError
from d2serve.servers.playground.forwarding import create_app
from d2serve.servers.playground.routes import PageConfig, Target
from tests.servers.asgi.fakes import send

CONFIG = PageConfig(("shapes",), Target("url", "http://127.0.0.1:8080/invocations"), token=False)
OWN = {"host": "127.0.0.1:8090"}
TIMING = "decode;dur=1.00"


class Server:
    """Records requests, and answers with `error` if there is one."""

    def __init__(self, error: ClientError | None = None) -> None:
        self.error = error
        self.received: list[tuple[Any, ...]] = []

    async def send(
        self, body: bytes, content_type: str, accept: str, options: Mapping[str, str]
    ) -> Reply:
        self.received.append((body, content_type, accept, dict(options)))
        if self.error:
            raise self.error
        return Reply(b'{"scores": []}', "application/json", TIMING)


def post(app: Starlette, headers: Mapping[str, Any] = {}, **options: Any) -> httpx.Response:
    return send(app, "POST", "/invocations", headers={**OWN, **headers}, **options)


def test_a_prediction_is_forwarded_with_its_options_and_without_other_headers() -> None:
    server = Server()
    response = post(
        create_app(CONFIG, server),
        {"content-type": "image/png", "accept": "application/json", "authorization": "Bearer x"},
        content=b"image",
        params={"masks": "rle", "model_name": "shapes"},
    )
    assert (response.status_code, response.json()) == (200, {"scores": []})
    assert response.headers["server-timing"] == TIMING
    assert server.received == [(b"image", "image/png", "application/json", {"masks": "rle"})]


def test_the_page_and_its_config_are_served() -> None:
    app = create_app(CONFIG, Server())
    assert send(app, "GET", "/", headers=OWN).status_code == 200
    config = send(app, "GET", "/playground/config.json", headers=OWN).json()
    assert config["target"]["url"] == "http://127.0.0.1:8080/invocations"
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/playground/nothing.js", 404, "not_found"),
        ("GET", "/invocations", 405, "method_not_allowed"),
    ):
        response = send(app, method, path, headers=OWN)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "example.org:8090"},
        {"host": "127.0.0.1.example.org"},
        {"host": "example.org@127.0.0.1"},
        {"host": "127.0.0.1:8090", "origin": "http://example.org"},
        {"host": "127.0.0.1:8090", "origin": "null"},
        {"host": "127.0.0.1:8090", "origin": "http://127.0.0.1:9000"},
        {"host": "localhost:8090", "origin": "http://127.0.0.1:8090"},
        {"host": "127.0.0.1:8090", "sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1:8090", "sec-fetch-site": "same-site"},
    ],
)
def test_requests_for_other_hosts_and_of_other_pages_are_refused(headers: dict[str, str]) -> None:
    server = Server()
    app = create_app(CONFIG, server)
    for method, path in (("POST", "/invocations"), ("GET", "/"), ("GET", "/nothing")):
        response = send(app, method, path, headers=headers)
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "forbidden"
        assert "access-control-allow-origin" not in response.headers
    assert server.received == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:9999", "origin": "http://localhost:9999"},
        {"host": "[::1]:8090", "sec-fetch-site": "none"},
        {"host": "127.0.0.1:8090", "sec-fetch-site": "same-origin"},
    ],
)
def test_requests_of_the_page_are_served(headers: dict[str, str]) -> None:
    assert post(create_app(CONFIG, Server()), headers, content=b"image").status_code == 200


@pytest.mark.parametrize("name", ["content-type", "accept"])
def test_a_header_that_cannot_be_forwarded_is_400(name: str) -> None:
    server = Server()
    response = post(create_app(CONFIG, server), {name: b"image/\xe9"})
    assert (response.status_code, server.received) == (400, [])
    assert f"the header {name} is" in response.json()["error"]["message"]


def test_a_body_above_the_limit_is_413_and_not_forwarded() -> None:
    server = Server()
    app = create_app(CONFIG, server, max_body_bytes=4)
    assert post(app, content=b"1234").status_code == 200
    response = post(app, content=b"12345")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (413, "too_large")
    assert "5 bytes" in error["message"]
    assert "at most 4" in error["message"]
    assert len(server.received) == 1


def test_errors_of_the_server_are_passed_on() -> None:
    error = PredictionError(503, "overloaded", "the queue is full", "wait", retry_after_s=7)
    response = post(create_app(CONFIG, Server(error)))
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["error"] == {
        "code": "overloaded",
        "message": "the queue is full",
        "hint": "wait",
    }


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("cannot connect"),
        PredictionError(0, "no_answer", "timed out"),
        PredictionError(302, "http_302", "Found"),
        ClientError("closed"),
    ],
)
def test_a_server_that_does_not_answer_is_502(error: ClientError) -> None:
    response = post(create_app(CONFIG, Server(error)))
    assert response.status_code == 502
    assert response.json()["error"]["message"] in str(error)
    assert response.json()["error"]["hint"]


def test_neither_the_demand_for_a_token_nor_signed_credentials_reach_the_page() -> None:
    unauthorized = PredictionError(401, "unauthorized", "missing", "send Authorization: Bearer")
    hint = post(create_app(CONFIG, Server(unauthorized))).json()["error"]["hint"]
    assert "--token-file" in hint
    signature = PredictionError(403, "InvalidSignatureException", "x-amz-security-token:SECRET")
    response = post(create_app(CONFIG, Server(signature)))
    assert response.status_code == 403
    assert "SECRET" not in response.text
