"""The routes of the page, for an ASGI application."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from d2serve.errors import not_found
from d2serve.messages import VERSION
from d2serve.servers.playground.files import PAGE, SECURITY_HEADERS, page_files

PREFIX = "/playground"
CONFIG = f"{PREFIX}/config.json"


@dataclass(frozen=True)
class Target:
    """The server or endpoint that the page's requests go to.

    Attributes:
        kind: `server` for the page's own server; for a server in front of another one, `url` or
            `sagemaker`.
        url: URL of the other server's prediction route.
        endpoint: name of the SageMaker endpoint.
        region: the endpoint's AWS region.
        target_model: `NAME.tar.gz` of a multi-model endpoint.
    """

    kind: str = "server"
    url: str | None = None
    endpoint: str | None = None
    region: str | None = None
    target_model: str | None = None


@dataclass(frozen=True)
class PageConfig:
    """The settings of the page.

    Attributes:
        models: names of the models.
        target: see `Target`.
        token: whether predictions need a token.
    """

    models: tuple[str, ...]
    target: Target
    token: bool

    def to_json(self) -> bytes:
        """The document `config.json`."""
        return json.dumps({**asdict(self), "version": VERSION}).encode()


def page_routes(config: Callable[[], PageConfig]) -> list[Route]:
    """The routes of the page; none if this installation has no page.

    Args:
        config: returns the current settings of the page.
    """
    files = page_files()
    if not files:
        return []

    async def page(request: Request) -> Response:
        return _response(files[PAGE].response(request.headers))

    async def asset(request: Request) -> Response:
        file = files.get(request.path_params["file"])
        if file is None:
            raise not_found()
        return _response(file.response(request.headers))

    async def settings(_: Request) -> Response:
        headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
        return Response(config().to_json(), media_type="application/json", headers=headers)

    return [
        Route("/", page, methods=["GET"]),
        Route(CONFIG, settings, methods=["GET"]),
        Route(PREFIX + "/{file}", asset, methods=["GET"]),
    ]


def is_page(path: str) -> bool:
    """Return whether a path is one of the page, which needs no token."""
    return path == "/" or path.startswith(f"{PREFIX}/")


def _response(parts: tuple[int, bytes, Mapping[str, Any]]) -> Response:
    status, body, headers = parts
    return Response(body, status, dict(headers))
