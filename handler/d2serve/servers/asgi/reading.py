"""Translate ASGI requests for the serving core."""

import re
import time
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from d2serve.inputs.options import merged
from d2serve.messages import MODEL_NAME, HttpRequest, Part, is_open_inference
from d2serve.servers.asgi.body import BodyLimits, declared_length, read_chunks
from d2serve.servers.body_memory import HeldBody

# Headers in which clients and load balancers send the identifier of a request.
ID_HEADERS = ("x-request-id", "x-amzn-requestid", "x-amzn-request-id", "x-correlation-id")
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=/+-]{0,127}", re.ASCII)


async def read_request(
    scope: Scope,
    receive: Receive,
    limits: BodyLimits,
    held: HeldBody,
    request_id: str,
    is_disconnected: Callable[[], bool],
) -> HttpRequest:
    """Read a complete request.

    Args:
        scope: the ASGI scope.
        receive: receives the body.
        limits: of the body.
        held: counts the bytes of the body.
        request_id: the request's identifier.
        is_disconnected: returns whether the client has disconnected.

    Raises:
        RequestError: 413 the body is too large, 408 it arrives too slowly, 499 the client has
            disconnected, 503 all bodies together are too large.
    """
    headers = headers_of(scope)
    held.require(declared_length(headers, limits))
    body = b"".join([chunk async for chunk in read_chunks(receive, limits, held)])
    return HttpRequest(
        headers=headers,
        parts=(Part(headers.get("content-type", ""), body),),
        query=query_of(scope),
        request_id=request_id,
        arrived=time.monotonic(),
        is_disconnected=is_disconnected,
        is_open_inference=is_open_inference(scope["path"]),
    )


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers with lower-case names; values of repeated ones are joined with commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def query_of(scope: Scope) -> dict[str, str]:
    """The options in the query string; see `merged` for repeated names."""
    text = scope["query_string"].decode("latin-1")
    values = merged(parse_qsl(text, keep_blank_values=True))
    values.pop(MODEL_NAME, None)
    return values


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's identifier of a request if it is safe to log, else a new one.

    Examples:
        >>> request_id_of({"x-request-id": "order-42"})
        'order-42'
        >>> len(request_id_of({"x-request-id": "two\\nlines"}))
        32
    """
    given = (headers.get(name, "") for name in ID_HEADERS)
    return next((text for text in given if SAFE_ID.fullmatch(text)), "") or uuid.uuid4().hex
