"""What is answered before a handler sees the request, in the contract's words.

TorchServe's errors are `{"code", "type", "message"}`, its health is `{"status"}`, and a body beyond
`max_request_size` gets a 413 without a body. A handler's answers look like none of these.
"""

import json
from collections.abc import Callable
from typing import Any

from handler.errors import (
    RequestError,
    bad_request,
    internal,
    method_not_allowed,
    not_found,
    overloaded,
    too_large,
)

ERROR = {"code", "type", "message"}
HEALTH = {"status"}
Error = Callable[[], RequestError]


def queue_full() -> RequestError:
    """503: as many requests wait as may."""
    return overloaded("the queue is full")


def not_ready() -> RequestError:
    """503: no worker has a model loaded."""
    return overloaded("no worker is ready")


def full() -> RequestError:
    """503: as many connections have requests under way as may."""
    return overloaded("too many connections have requests under way")


def stalled() -> RequestError:
    """400: a part of the request has not come."""
    return bad_request("the request did not come to its end", "send all of it without a pause")


def body_too_large() -> RequestError:
    """413: beyond TorchServe's own limit."""
    return too_large("the body is larger than the server takes", "send fewer or smaller pictures")


def broken_form() -> RequestError:
    """400: a web form's escapes are broken."""
    return bad_request("the web form is broken", "send the picture itself as the body")


def broken_query() -> RequestError:
    """400: a query string's escapes are broken."""
    return bad_request("the query string is broken", "escape percent signs in it as %25")


def wrong_token() -> RequestError:
    """400, as TorchServe has it: a server that asks for a token got none that it knows."""
    return bad_request(
        "the token is missing, wrong or expired", "send the header Authorization: Bearer TOKEN"
    )


def unreadable() -> RequestError:
    """400: TorchServe found fault with the request."""
    return bad_request("the request cannot be read", "see the API's documentation")


BY_STATUS: dict[int, Error] = {404: not_found, 405: method_not_allowed, 413: body_too_large}
# By TorchServe's names for what is no fault of its own, whatever status it gives them.
BY_TYPE: dict[str, Error] = {
    "ServiceUnavailableException": queue_full,
    "ErrorDataDecoderException": broken_form,
    "IllegalArgumentException": broken_query,
    "InvalidKeyException": wrong_token,
}


def own_answer(status: int, body: bytes, ready: bool) -> RequestError | None:
    """What a client gets in place of a response of TorchServe's own; None: the response itself.

    Args:
        status: TorchServe's.
        body: the response's.
        ready: whether any worker can take requests.
    """
    if not body:
        return body_too_large() if status == 413 else None
    content = _parsed(body)
    if not isinstance(content, dict):
        return None
    if content.keys() == HEALTH:
        return None if ready else not_ready()
    return _error(status, content) if content.keys() == ERROR else None


def _error(status: int, content: dict[str, Any]) -> RequestError:
    known = BY_TYPE.get(str(content["type"])) or BY_STATUS.get(status)
    if known:
        return known()
    # Among the others is the 507 for a worker that was killed: TorchServe takes every kill for a
    # lack of memory.
    return internal() if status >= 500 else unreadable()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
