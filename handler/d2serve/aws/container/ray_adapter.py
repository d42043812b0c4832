"""The adapter of AWS's Ray container for SageMaker: SageMaker's two routes in front of Ray Serve.

Imitates what AWS's adapter forwards in each direction, its defaults, its errors and its limits.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

FORWARDED = "x-amzn-sagemaker-"
JSON = "application/json"
TIMEOUT_VARIABLE = "RAYSERVE_BACKEND_TIMEOUT"
DEFAULT_TIMEOUT_S = "300"
PING_TIMEOUT_S = 5.0


def create_adapter(backend: str, timeout_s: float) -> Starlette:
    """Create the application.

    Args:
        backend: base URL of Ray Serve.
        timeout_s: time in seconds that a request may take, from `TIMEOUT_VARIABLE`.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=backend, timeout=timeout_s, trust_env=False) as http:
            app.state.http = http
            yield

    routes = [
        Route("/invocations", invoke, methods=["POST"]),
        Route("/ping", ping, methods=["GET"]),
    ]
    handlers = {HTTPException: on_http_error}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


async def invoke(request: Request) -> Response:
    """Forward the whole body to the root of Ray Serve, without query and most headers."""
    body = await request.body()
    accept = request.headers.get("accept", JSON)
    headers = _sagemakers(request.headers.items()) | {
        "Content-Type": request.headers.get("content-type", JSON),
        "Accept": accept,
    }
    http: httpx.AsyncClient = request.app.state.http
    try:
        response = await http.post("/", content=body, headers=headers)
    except httpx.TimeoutException:
        return _error("Request timeout", 504)
    except httpx.ConnectError:
        return _error("Service unavailable", 503)
    except httpx.HTTPError as error:
        return _error(str(error), 500)
    return Response(
        response.content,
        response.status_code,
        _sagemakers(response.headers.items()),
        response.headers.get("content-type", accept),
    )


async def ping(request: Request) -> Response:
    """Ray Serve's own health check, as 200 or 503 without a body."""
    http: httpx.AsyncClient = request.app.state.http
    try:
        response = await http.get("/-/healthz", timeout=PING_TIMEOUT_S)
    except httpx.HTTPError:
        return PlainTextResponse("", 503)
    return PlainTextResponse("", 200 if response.status_code == 200 else 503)


async def on_http_error(_: Request, error: Exception) -> Response:
    """Unknown routes and methods, in the form of FastAPI."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def _sagemakers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower().startswith(FORWARDED)}


def _error(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status)


if __name__ == "__main__":
    timeout = int(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S))
    uvicorn.run(create_adapter(sys.argv[2], timeout), host="127.0.0.1", port=int(sys.argv[1]))
