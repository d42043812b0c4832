"""A fake pipeline that returns what it received, and clients for it."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette

from d2serve.errors import overloaded
from d2serve.messages import HttpRequest
from d2serve.metadata import ModelMetadata
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

SHAPES = ModelMetadata("shapes", ("circle", "star"), score_threshold=0.5, max_detections=10)


def echo(request: HttpRequest) -> HttpResponse:
    """Return the request as JSON."""
    content = {
        "headers": dict(request.headers),
        "parts": [[part.content_type, part.body.decode("latin-1")] for part in request.parts],
        "query": dict(request.query),
        "id": request.request_id,
        "is_open_inference": request.is_open_inference,
    }
    return HttpResponse(200, "application/json", json.dumps(content).encode(), {"X-Extra": "1"})


@dataclass
class FakePipeline:
    """Responds at once, or when a test completes the future.

    Attributes:
        respond: computes the response; None leaves the future to the test.
        settings: the settings.
        requests: the requests so far.
        futures: their futures.
        is_full: whether further requests are rejected.
        model: the model's metadata.
    """

    respond: Callable[[HttpRequest], HttpResponse] | None = echo
    settings: Settings = field(default_factory=Settings)
    requests: list[HttpRequest] = field(default_factory=list)
    futures: list["Future[HttpResponse]"] = field(default_factory=list)
    is_full: bool = False
    model: ModelMetadata = SHAPES

    def check_room(self) -> None:
        if self.is_full:
            raise overloaded("the request queue is full", 7)

    def submit(self, request: HttpRequest) -> "Future[HttpResponse]":
        future: Future[HttpResponse] = Future()
        self.requests.append(request)
        self.futures.append(future)
        if self.respond:
            future.set_result(self.respond(request))
        return future


def send(app: Starlette, method: str, url: str, **options: Any) -> httpx.Response:
    """Send one request to an application in this process."""
    [response] = send_all(app, (method, url, options))
    return response


def send_all(app: Starlette, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """Send requests at the same time to an application in this process."""

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            sent = (client.request(method, url, **options) for method, url, options in requests)
            return await asyncio.gather(*sent)

    return asyncio.run(run())
