"""The parts of a replica that work without Ray."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d2serve.errors import RequestError, ServerError
from d2serve.servers.asgi.app import create_app
from d2serve.servers.ray.head import HeadLimit
from d2serve.servers.ray.health import check_pipeline
from d2serve.servers.ray.mount import Mounted
from tests.servers.asgi.fakes import FakePipeline


class Checked:
    def __init__(self, *, is_healthy: bool = True, seconds: float = 0.0) -> None:
        self.is_healthy = is_healthy
        self.seconds = seconds

    def forward_seconds(self) -> float:
        return self.seconds


def test_a_working_replica_is_healthy() -> None:
    check_pipeline(Checked(seconds=119), forward_timeout_s=120)


def test_a_forward_pass_that_hangs_makes_the_replica_unhealthy() -> None:
    with pytest.raises(ServerError, match="a forward pass has not ended after 121 s"):
        check_pipeline(Checked(seconds=121), forward_timeout_s=120)


def test_a_lost_device_makes_the_replica_unhealthy() -> None:
    with pytest.raises(ServerError, match="the device is lost"):
        check_pipeline(Checked(is_healthy=False), forward_timeout_s=120)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"x-request-id", b"own"), (b"path", scope["path"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope.get("raw_path", b"")})


def responses_to(app: ASGIApp, **scope: Any) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    request = {"type": "http", "method": "GET", "headers": [], **scope}

    async def run() -> None:
        await app(request, receive, send)

    asyncio.run(run())
    return sent


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/ping", b"/ping"),
        ("/shapes", "/shapes/ping", b"/ping"),
        ("/shapes", "/shapes/", b"/"),
        ("/shapes", "/other", b"/other"),
    ],
)
def test_the_application_gets_paths_without_the_route_prefix(
    root: str, path: str, expected: bytes
) -> None:
    [start, _] = responses_to(Mounted(application), root_path=root, path=path)
    assert dict(start["headers"])[b"path"] == expected


@pytest.mark.parametrize(("root", "location"), [("/shapes", b"shapes/"), ("/a/b", b"b/")])
def test_relative_urls_of_the_page_work_below_the_route_prefix(root: str, location: bytes) -> None:
    [start, _] = responses_to(Mounted(application), root_path=root, path=root)
    assert (start["status"], dict(start["headers"])[b"location"]) == (307, location)


def test_the_response_does_not_repeat_the_identifier_that_ray_adds() -> None:
    [start, _] = responses_to(
        Mounted(application), path="/", headers=[(b"x-request-id", b"of-ray")]
    )
    assert b"x-request-id" not in dict(start["headers"])
    [start, _] = responses_to(Mounted(application), path="/")
    assert dict(start["headers"])[b"x-request-id"] == b"own"


def test_the_core_gives_up_a_request_that_ray_cancels() -> None:
    """Ray cancels the task of a client that has disconnected."""
    pipeline = FakePipeline(respond=None)
    app = create_app({"shapes": pipeline})

    async def run() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://server"
        ) as client:
            task = asyncio.create_task(client.post("/invocations", content=b"a"))
            while not pipeline.requests:
                await asyncio.sleep(0)
            assert not pipeline.requests[0].is_disconnected()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert pipeline.requests[0].is_disconnected()


@pytest.mark.parametrize(("fields", "status"), [(1, 200), (2, 431)])
def test_a_large_head_is_rejected(fields: int, status: int) -> None:
    """The identifier that Ray adds does not count."""
    errors: list[RequestError] = []
    base = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"a=b"}
    start = {"type": "http", "http_version": "1.1", **base}
    headers = [(b"x-request-id", b"a" * 40), *((b"field", b"a" * 31) for _ in range(fields))]
    limit = len("GET /?a=b HTTP/1.1\r\n") + len("field: \r\n") + 31 + len("\r\n")
    limited = HeadLimit(application, errors.append, limit)
    [first, *_] = responses_to(Mounted(limited), **start, headers=headers)
    assert first["status"] == status
    assert [error.code for error in errors] == ["headers_too_large"] * (fields - 1)
