"""The imitation of AWS's adapter: what it forwards in each direction, and its own errors."""

import asyncio
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from d2serve.aws import ray_container

Backend: TypeAlias = Callable[[httpx.Request], httpx.Response]
SCRIPT = Path(ray_container.ENTRYPOINT).with_name("ray_adapter.py")


def load_script() -> Any:
    """The adapter is a script, which runs in the container's environment."""
    spec = importlib.util.spec_from_file_location("ray_adapter", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def send(backend: Backend, method: str, path: str, **request: Any) -> httpx.Response:
    """Send a request through the adapter to a function that stands for Ray Serve."""

    async def sent() -> httpx.Response:
        app = load_script().create_adapter("http://serve", 300)
        transport = httpx.MockTransport(backend)
        async with (
            httpx.AsyncClient(base_url="http://serve", transport=transport) as app.state.http,
            httpx.AsyncClient(
                base_url="http://adapter", transport=httpx.ASGITransport(app)
            ) as client,
        ):
            return await client.request(method, path, **request)

    return asyncio.run(sent())


def test_requests() -> None:
    received: list[httpx.Request] = []

    def backend(request: httpx.Request) -> httpx.Response:
        received.append(request)
        return httpx.Response(200)

    headers = {
        "Content-Type": "image/png",
        "Accept": "image/jpeg",
        "X-Amzn-SageMaker-Custom-Attributes": "masks=none",
        "X-D2serve-Timeout-Ms": "5",
        "Authorization": "Bearer a",
        "Content-Encoding": "gzip",
    }
    send(backend, "POST", "/invocations?masks=none", content=b"abc", headers=headers)
    [request] = received
    assert (request.method, str(request.url), request.content) == ("POST", "http://serve/", b"abc")
    assert request.headers["content-type"] == "image/png"
    assert request.headers["accept"] == "image/jpeg"
    assert request.headers["x-amzn-sagemaker-custom-attributes"] == "masks=none"
    own = {"host", "accept-encoding", "connection", "user-agent", "content-length"}
    assert set(request.headers) - own == {
        "content-type",
        "accept",
        "x-amzn-sagemaker-custom-attributes",
    }


def test_types_that_are_missing_are_json() -> None:
    def backend(request: httpx.Request) -> httpx.Response:
        types = [request.headers["content-type"], request.headers["accept"]]
        return httpx.Response(200, json=types)

    # httpx sends an Accept by itself.
    response = send(backend, "POST", "/invocations", content=b"a", headers={"Accept": ""})
    assert response.json() == ["application/json", ""]


def test_responses() -> None:
    headers = {
        "Content-Type": "image/png",
        "X-Amzn-SageMaker-Custom-Attributes": "a",
        "Server-Timing": "decode;dur=1",
        "Retry-After": "2",
    }
    backend = respond(503, b"busy", headers)
    response = send(backend, "POST", "/invocations", content=b"a")
    assert (response.status_code, response.content) == (503, b"busy")
    assert set(response.headers) == {
        "content-type",
        "content-length",
        "x-amzn-sagemaker-custom-attributes",
    }


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (httpx.ReadTimeout("slow"), 504, "Request timeout"),
        (httpx.ConnectError("refused"), 503, "Service unavailable"),
        (httpx.ReadError("closed"), 500, "closed"),
    ],
)
def test_errors(error: Exception, status: int, message: str) -> None:
    def backend(_: httpx.Request) -> httpx.Response:
        raise error

    response = send(backend, "POST", "/invocations", content=b"a")
    assert (response.status_code, response.json()) == (status, {"error": message})
    assert send(backend, "GET", "/ping").status_code == 503


@pytest.mark.parametrize(("health", "status"), [(200, 200), (503, 503), (404, 503)])
def test_health_is_that_of_ray(health: int, status: int) -> None:
    paths: list[str] = []

    def backend(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(health, text="success")

    response = send(backend, "GET", "/ping")
    assert (response.status_code, response.content) == (status, b"")
    assert paths == ["/-/healthz"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/invocations", 405), ("POST", "/predictions/a", 404), ("GET", "/metrics", 404)],
)
def test_other_routes(method: str, path: str, status: int) -> None:
    response = send(respond(200, b"", {}), method, path)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]


def respond(status: int, content: bytes, headers: Mapping[str, str]) -> Backend:
    """Return the same response to every request."""
    return lambda _: httpx.Response(status, content=content, headers=headers)
