"""Responses of the server: those of the core, and errors that the server reports itself."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any, TypeAlias

import h11
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from d2serve.errors import RequestError
from d2serve.messages import NO_STAGES, REQUEST_TYPES, body_type_of, is_open_inference
from d2serve.serving.log_context import request_context
from d2serve.serving.requests import HttpResponse, error_response

logger = logging.getLogger(__name__)
# A field of a head: name and value.
Field: TypeAlias = tuple[bytes, bytes]
# Called with every error that the server reports itself.
OnError = Callable[[RequestError], None]
LOG_INTERVAL_S = 1.0


def to_asgi(response: HttpResponse) -> Response:
    """Translate a response of the core."""
    headers = {"content-type": response.content_type, **response.headers}
    return Response(response.body, response.status, headers)


def report_error(error: RequestError, request: Mapping[str, Any]) -> None:
    """Log an error response of the server, as the core logs the requests that it processes.

    Args:
        error: the error.
        request: further fields of the line; none may contain text of the client.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = {
        "event": "request",
        "time": now,
        **request,
        "status": error.status,
        "code": error.code,
        "message": error.message,
    }
    with request_context():  # a line of JSON has no prefix; the id is a field of it
        logger.info(json.dumps(line))


class RareLog:
    """Logs one error a second, with the number of all since the last line.

    A line for each would be a third of the time that such a response takes.

    Args:
        count: name of the field with the number.
    """

    def __init__(self, count: str) -> None:
        self._count = count
        self._due_s = 0.0
        self._unlogged = 0

    def report(self, error: RequestError, request: Mapping[str, Any]) -> None:
        """Log or count an error response; see `report_error`."""
        self._unlogged += 1
        if time.monotonic() >= self._due_s:
            report_error(error, {**request, self._count: self._unlogged})
            self._due_s, self._unlogged = time.monotonic() + LOG_INTERVAL_S, 0


def own_error(scope: Scope, error: RequestError, on_error: OnError, *, logs: bool) -> Response:
    """Build, log and count an error response that the core does not know of.

    Args:
        scope: of the request; its state has the request's identifier.
        error: the error.
        on_error: counts it.
        logs: whether the log has a line for it.
    """
    if logs:
        report_error(error, request_fields(scope))
    on_error(error)
    return to_response(error, is_open_inference=is_open_inference(scope["path"]))


def to_response(error: RequestError, *, is_open_inference: bool = False) -> Response:
    """Translate an error of a request that no stage has processed."""
    response = to_asgi(error_response(error, is_open_inference=is_open_inference))
    response.headers["server-timing"] = NO_STAGES
    return response


def to_events(response: Response, request_id: str, *fields: Field) -> Sequence[h11.Event]:
    """Translate a response that is sent without the application.

    Args:
        response: the response.
        request_id: the request's identifier.
        fields: further fields of the head.
    """
    headers = [*response.raw_headers, (b"x-request-id", request_id.encode()), *fields]
    reason = HTTPStatus(response.status_code).phrase.encode()
    return (
        h11.Response(status_code=response.status_code, headers=headers, reason=reason),
        h11.Data(data=bytes(response.body)),
        h11.EndOfMessage(),
    )


def request_fields(scope: Scope) -> dict[str, Any]:
    """The loggable part of a request."""
    headers = Request(scope).headers
    media_type = body_type_of(headers.get("content-type", ""))
    known = media_type if media_type in REQUEST_TYPES else "other" if media_type else "none"
    length = headers.get("content-length", "")
    return {
        "id": scope["state"]["request_id"],
        "route": route_of(scope),
        "content_type": known,
        "bytes_in": int(length) if length.isascii() and length.isdecimal() else None,
    }


def route_of(scope: Scope) -> str:
    """The pattern of the request's route, such as `/v2/models/{name}/infer`; `none` without one."""
    route = scope.get("route")
    return getattr(route, "path", "none")
