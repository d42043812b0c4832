"""Error responses of the proxy, and the translation of TorchServe's own errors."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from d2serve.errors import (
    RequestError,
    bad_request,
    internal,
    method_not_allowed,
    not_found,
    overloaded,
    request_timeout,
    too_large,
    unauthorized,
)
from d2serve.servers.torchserve.proxy.limits import MIN_PROGRESS_BYTES

# The keys of TorchServe's own error bodies, and the largest size of such bodies.
ERROR_KEYS = {"code", "type", "message"}
MAX_ERROR_BYTES = 1 << 14


def error_body(error: RequestError, is_open_inference: bool) -> bytes:
    """Encode an error as JSON in the contract's form, or in that of the Open Inference Protocol."""
    return json.dumps(error.body(is_open_inference=is_open_inference)).encode("ascii")


def translate_error(status: int, body: bytes) -> RequestError | None:
    """Return the contract's error for an error response that TorchServe generated itself.

    Args:
        status: the response's status.
        body: the response's body, at most MAX_ERROR_BYTES.

    Returns:
        None for a handler's response, which is forwarded as it is.
    """
    if not body:
        return _error_of(status, "")
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.keys() != ERROR_KEYS:
        return None
    return _error_of(status, str(content["type"]))


def not_ready() -> RequestError:
    """503: no worker has loaded a model."""
    return overloaded("no worker is ready to accept requests")


def queue_full() -> RequestError:
    """503: TorchServe's queue is full."""
    return overloaded("the request queue is full")


def too_many_connections() -> RequestError:
    """503: the maximum number of connections have requests in progress."""
    return overloaded("too many connections have a request in progress")


def no_response() -> RequestError:
    """503: TorchServe has not responded for long."""
    return overloaded("the server did not respond in time")


def incomplete_request() -> RequestError:
    """408: the rest of a request did not arrive in time."""
    return request_timeout(
        "the rest of the request was not received before the timeout",
        f"send the request without pauses, at least {MIN_PROGRESS_BYTES} bytes in each timeout",
    )


def body_too_large() -> RequestError:
    """413: larger than the settings or TorchServe's max_request_size allow."""
    return too_large(
        "the request body is larger than the server's maximum", "send fewer or smaller images"
    )


def rejected() -> RequestError:
    """400: TorchServe could not use the request."""
    return bad_request(
        "the request could not be parsed",
        "check the path, the headers and the form against the API documentation",
    )


ERROR_OF_STATUS: dict[int, Callable[[], RequestError]] = {
    401: unauthorized,
    404: not_found,
    405: method_not_allowed,
    413: body_too_large,
}
# Keyed by TorchServe's names of errors that the client or the load caused, whatever their status.
ERROR_OF_TYPE: dict[str, Callable[[], RequestError]] = {
    "ServiceUnavailableException": queue_full,
    "InvalidKeyException": unauthorized,
    # A multipart or urlencoded form that it cannot parse.
    "ErrorDataDecoderException": rejected,
}


def _error_of(status: int, name: str) -> RequestError:
    known = ERROR_OF_TYPE.get(name) or ERROR_OF_STATUS.get(status)
    if known:
        return known()
    # This includes the 507 for a worker that was killed, which TorchServe attributes to a lack of
    # memory whatever the reason was.
    return internal() if status >= HTTPStatus.INTERNAL_SERVER_ERROR else rejected()
