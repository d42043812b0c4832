"""The page in front of another server or of a SageMaker endpoint: an application that forwards."""

import logging
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2serve.errors import (
    ClientError,
    PredictionError,
    RequestError,
    bad_request,
    method_not_allowed,
    not_found,
    too_large,
)
from d2serve.messages import JSON_TYPE, MODEL_NAME
from d2serve.servers.playground.files import SECURITY_HEADERS
from d2serve.servers.playground.origin import OwnOriginMiddleware
from d2serve.servers.playground.routes import PageConfig, page_routes
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = Settings().max_request_bytes
PRIVATE = {**SECURITY_HEADERS, "cache-control": "no-store"}
# AWS's messages of these errors contain what was signed, also the session token.
SIGNATURE_ERRORS = ("SignatureDoesNotMatch", "InvalidSignatureException")


class Reply(Protocol):
    """A successful response.

    Attributes:
        content: its body.
        content_type: its Content-Type; may be empty.
        server_timing: its Server-Timing; may be empty.
    """

    @property
    def content(self) -> bytes: ...  # noqa: D102
    @property
    def content_type(self) -> str: ...  # noqa: D102
    @property
    def server_timing(self) -> str: ...  # noqa: D102


class Connection(Protocol):
    """A connection to the other server, which adds the credentials."""

    async def send(
        self, body: bytes, content_type: str, accept: str, options: Mapping[str, str]
    ) -> Reply:
        """Send a prediction request.

        Args:
            body: the request's body.
            content_type: its type.
            accept: requested type of the response.
            options: request options of the API.

        Raises:
            ClientError: the server responded with an error, or not at all.
        """
        ...


def create_app(
    config: PageConfig, connection: Connection, max_body_bytes: int = MAX_BODY_BYTES
) -> Starlette:
    """Create the application, which is for loopback only.

    Args:
        config: the settings of the page.
        connection: where predictions are sent to.
        max_body_bytes: maximum size of a request body.
    """

    async def predict(request: Request) -> Response:
        options = {name: text for name, text in request.query_params.items() if name != MODEL_NAME}
        content_type = _header(request, "content-type", "")
        accept = _header(request, "accept", JSON_TYPE)
        body = await _body(request, max_body_bytes)
        try:
            reply = await connection.send(body, content_type, accept, options)
        except ClientError as error:
            raise to_request_error(error) from error
        headers = {"Content-Type": reply.content_type or JSON_TYPE, **PRIVATE}
        timing = {"Server-Timing": reply.server_timing} if reply.server_timing else {}
        return Response(reply.content, headers=headers | timing)

    return Starlette(
        routes=[Route("/invocations", predict, methods=["POST"]), *page_routes(lambda: config)],
        middleware=[Middleware(OwnOriginMiddleware)],
        exception_handlers={RequestError: _on_request_error, HTTPException: _on_http_error},
    )


def serve(app: Starlette, listener: socket.socket) -> None:
    """Serve an application until a signal stops it.

    Args:
        app: the application.
        listener: a listening socket; closed afterwards.
    """
    # Requests are logged by the server that they are forwarded to.
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def to_request_error(error: ClientError) -> RequestError:
    """Translate the error of the other server, or that of the connection to it, which is a 502.

    Examples:
        >>> to_request_error(PredictionError(400, "bad_request", "empty body", "send one")).status
        400
        >>> int(to_request_error(PredictionError(0, "no_answer", "timed out")).status)
        502
    """
    hint = "check that the server or endpoint is running"
    if not isinstance(error, PredictionError):
        return RequestError(HTTPStatus.BAD_GATEWAY, "unreachable", str(error), hint)
    code, message, hint = error.code, error.message, error.hint or hint
    if error.status == HTTPStatus.UNAUTHORIZED:
        hint = "start `d2serve playground` with --token-file"
    elif code in SIGNATURE_ERRORS:
        message = "AWS has rejected the signature of the request"
        hint = "check this machine's AWS credentials and its clock"
    # The others are those of redirects, which are not followed.
    is_error = error.status >= HTTPStatus.BAD_REQUEST
    status = error.status if is_error else HTTPStatus.BAD_GATEWAY
    retry = {"Retry-After": f"{error.retry_after_s:.0f}"} if error.retry_after_s else {}
    return RequestError(status, code, message, hint, retry)


def _header(request: Request, name: str, default: str) -> str:
    """A header to forward.

    Raises:
        RequestError: 400 it contains characters other than printable ASCII.
    """
    value = request.headers.get(name, default)
    if not (value.isascii() and value.isprintable()):
        raise bad_request(
            f"the header {name} is {value!r:.60}; expected printable ASCII characters",
            "send a media type such as image/png",
        )
    return value


async def _body(request: Request, max_bytes: int) -> bytes:
    """Read a request's body.

    Raises:
        RequestError: 413 it is too large. A browser shows the response only after it has sent the
            whole body, so the rest is read and dropped.
    """
    content, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            content += chunk
        else:
            content.clear()
    if size > max_bytes:
        raise too_large(
            f"the image has {size} bytes; `d2serve playground` forwards at most {max_bytes}",
            "use a smaller image",
        )
    return bytes(content)


async def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    logger.warning("%d %s: %s", error.status, error.code, error.message)
    return JSONResponse(error.body(), error.status, {**error.headers, **PRIVATE})


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Translate an error of Starlette's router."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {})["Allow"].split(", ")
        return await _on_request_error(request, method_not_allowed(*sorted(allowed)))
    return await _on_request_error(request, not_found())
