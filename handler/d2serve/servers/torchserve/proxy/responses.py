"""TorchServe's responses, with its own errors mapped to the contract's."""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from d2serve.errors import (
    RequestError,
    bad_request,
    internal,
    method_not_allowed,
    not_found,
    overloaded,
    too_large,
)
from d2serve.servers.torchserve.proxy.http1 import HEAD_END, LONGEST_HEAD, Head, parse_head

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


# Longer ones are no answers of TorchServe's own.
LONGEST_ERROR = 1 << 14
LONGEST_HEALTH = 64
SWITCHING_PROTOCOLS = 101
WITHOUT_BODY = (204, 304)


class ResponseStream:
    """The responses of one connection, passed on as they come but for those that are rewritten.

    From the first one on that it cannot tell the end of, it passes on all bytes as they are.

    Args:
        is_ready: whether any worker can take requests, whatever TorchServe says.

    Attributes:
        complete: how many responses have been passed on to their end.
        limit: after so many it reads no more, because it does not know what they answer.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self.complete = 0
        self.limit: int | None = None
        self._is_ready = is_ready
        self._lost = False
        self._held = bytearray()
        self._body_left = 0

    @property
    def blind(self) -> bool:
        """Whether it passes on what it does not read."""
        return self._lost or (self.limit is not None and self.complete >= self.limit)

    @property
    def within(self) -> bool:
        """Whether the client has got a part of a response whose rest is to come."""
        return self._body_left > 0

    def feed(self, chunk: bytes) -> bytes:
        """Takes what TorchServe has sent next; gives what goes on to the client."""
        passed = bytearray()
        while chunk and not self.blind:
            if self._body_left:
                body, chunk = chunk[: self._body_left], chunk[self._body_left :]
                passed += body
                self._passed_body(len(body))
                continue
            self._held += chunk
            chunk = self._next_response(passed)
        if self.blind:
            passed += self.rest() + chunk
            self._held.clear()
        return bytes(passed)

    def rest(self) -> bytes:
        """What it has held back, at the end."""
        return bytes(self._held)

    def _next_response(self, passed: bytearray) -> bytes:
        """Passes on what is known of the response that is held; gives what comes after it."""
        encoded, separator, rest = bytes(self._held).partition(HEAD_END)
        if not separator:
            self._lost = len(encoded) > LONGEST_HEAD
            return b""
        head = parse_head(encoded)
        status = _status(head) if head else None
        if head is None or status is None or status == SWITCHING_PROTOCOLS:
            self._lost = True
            return b""
        if status < HTTPStatus.OK:  # 100 Continue: the response itself is still to come
            return self._pass(encoded + separator, rest, passed)
        length = 0 if status in WITHOUT_BODY else head.body_bytes()
        if length is None:
            self._lost = True
            return b""
        if _may_be_own(status, head, length):
            if len(rest) < length:
                return b""
            body, rest = rest[:length], rest[length:]
            error = own_answer(status, body, self._is_ready())
            self.complete += 1
            whole = error_response(error, head.fields) if error else encoded + separator + body
            return self._pass(whole, rest, passed)
        self._body_left = length
        self._passed_body(0)
        return self._pass(encoded + separator, rest, passed)

    def _passed_body(self, count: int) -> None:
        self._body_left -= count
        self.complete += not self._body_left

    def _pass(self, message: bytes, rest: bytes, passed: bytearray) -> bytes:
        passed += message
        self._held.clear()
        return rest


def error_response(error: RequestError, fields: Iterable[tuple[str, str]]) -> bytes:
    """A whole response: the error's status, body and own fields, and of `fields` all others."""
    body = json.dumps(error.body()).encode("ascii")
    own = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in error.headers().items()},
    }
    kept = [(name, value) for name, value in fields if name.lower() not in own]
    status_line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"
    return Head(status_line, (*kept, *own.items())).encoded() + body


def _status(head: Head) -> int | None:
    version, _, rest = head.first_line.partition(" ")
    return int(rest[:3]) if version == "HTTP/1.1" and rest[:3].isdecimal() else None


def _may_be_own(status: int, head: Head, length: int) -> bool:
    if length > (LONGEST_ERROR if status >= HTTPStatus.BAD_REQUEST else LONGEST_HEALTH):
        return False
    return not length or head.values("content-type") == ["application/json"]
