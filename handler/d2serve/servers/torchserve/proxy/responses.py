"""Responses to clients: TorchServe's own errors, translated to the contract's."""

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
from d2serve.servers.torchserve.proxy.http1 import HEAD_END, MAX_HEAD_BYTES, Head, parse_head
from d2serve.servers.torchserve.proxy.limits import MIN_PROGRESS_BYTES

# The keys of TorchServe's own error and health bodies, and the largest size of such bodies.
ERROR_KEYS = {"code", "type", "message"}
HEALTH_KEYS = {"status"}
MAX_ERROR_BYTES = 1 << 14
MAX_HEALTH_BYTES = 64
STATUSES_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class ResponseStream:
    """The responses of one connection, forwarded as they arrive, with TorchServe's errors replaced.

    From the first response whose end cannot be determined, all bytes pass through unchanged.

    Args:
        is_ready: whether any worker can take requests, whatever TorchServe reports.

    Attributes:
        responses: number of responses forwarded completely.
        max_parsed: number of responses after which bytes pass through, because the requests that
            they belong to were not parsed either; None for no limit.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self.responses = 0
        self.max_parsed: int | None = None
        self._is_ready = is_ready
        self._unparseable = False
        self._buffer = bytearray()
        self._body_left = 0

    @property
    def passthrough(self) -> bool:
        """True if bytes pass through without being parsed."""
        limit_reached = self.max_parsed is not None and self.responses >= self.max_parsed
        return self._unparseable or limit_reached

    @property
    def in_body(self) -> bool:
        """True if the client has received a part of a response whose rest has not arrived."""
        return self._body_left > 0

    def feed(self, received: bytes) -> bytes:
        """Parse bytes from TorchServe; return the bytes for the client."""
        forwarded = bytearray()
        while received and not self.passthrough:
            if self._body_left:
                body, received = received[: self._body_left], received[self._body_left :]
                forwarded += body
                self._forward_body(len(body))
                continue
            self._buffer += received
            received = self._begin_response(forwarded)
        if self.passthrough:
            forwarded += self.buffered() + received
            self._buffer.clear()
        return bytes(forwarded)

    def buffered(self) -> bytes:
        """The bytes of an incomplete response, which have not been forwarded."""
        return bytes(self._buffer)

    def _begin_response(self, forwarded: bytearray) -> bytes:
        """Append as much of the buffered response as is known; return the bytes after it."""
        encoded, separator, rest = bytes(self._buffer).partition(HEAD_END)
        if not separator:
            self._unparseable = len(encoded) > MAX_HEAD_BYTES
            return b""
        head = parse_head(encoded)
        status = _status(head) if head else None
        if head is None or status is None or status == HTTPStatus.SWITCHING_PROTOCOLS:
            self._unparseable = True
            return b""
        if status < HTTPStatus.OK:  # 100 Continue: the final response is still to come
            return self._forward(encoded + separator, rest, forwarded)
        length = 0 if status in STATUSES_WITHOUT_BODY else head.content_length()
        if length is None:
            self._unparseable = True
            return b""
        if _may_be_replaced(status, head, length):
            if len(rest) < length:
                return b""
            body, rest = rest[:length], rest[length:]
            error = translate_error(status, body, self._is_ready())
            self.responses += 1
            message = error_response(error, head.fields) if error else encoded + separator + body
            return self._forward(message, rest, forwarded)
        self._body_left = length
        self._forward_body(0)
        return self._forward(encoded + separator, rest, forwarded)

    def _forward_body(self, count: int) -> None:
        self._body_left -= count
        self.responses += not self._body_left

    def _forward(self, message: bytes, rest: bytes, forwarded: bytearray) -> bytes:
        forwarded += message
        self._buffer.clear()
        return rest


def translate_error(status: int, body: bytes, ready: bool) -> RequestError | None:
    """Return the contract's error for a response that TorchServe generated itself.

    Args:
        status: the response's status.
        body: the response's body.
        ready: whether any worker can take requests.

    Returns:
        None for a response that is forwarded as it is.
    """
    if not body:
        return body_too_large() if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    if content.keys() == HEALTH_KEYS:
        return None if ready else not_ready()
    if content.keys() != ERROR_KEYS:
        return None
    known = ERROR_OF_TYPE.get(str(content["type"])) or ERROR_OF_STATUS.get(status)
    if known:
        return known()
    # This includes the 507 for a worker that was killed, which TorchServe attributes to a lack of
    # memory whatever the reason was.
    return internal() if status >= HTTPStatus.INTERNAL_SERVER_ERROR else malformed_request()


def error_response(error: RequestError, fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode a complete response for an error; the error's own fields replace those of `fields`."""
    body = json.dumps(error.body()).encode("ascii")
    own_fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in error.headers().items()},
    }
    other_fields = [(name, value) for name, value in fields if name.lower() not in own_fields]
    status_line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"
    return Head(status_line, (*other_fields, *own_fields.items())).encode() + body


def queue_full() -> RequestError:
    """503: TorchServe's queue is full."""
    return overloaded("the request queue is full")


def not_ready() -> RequestError:
    """503: no worker has loaded a model."""
    return overloaded("no worker is ready to accept requests")


def too_many_connections() -> RequestError:
    """503: the maximum number of connections have requests in progress."""
    return overloaded("too many connections have a request in progress")


def incomplete_request() -> RequestError:
    """400: the rest of a request did not arrive in time."""
    return bad_request(
        "the rest of the request was not received before the timeout",
        f"send the request without pauses, at least {MIN_PROGRESS_BYTES} bytes in each timeout",
    )


def body_too_large() -> RequestError:
    """413: larger than TorchServe's max_request_size."""
    return too_large(
        "the request body is larger than the server's maximum", "send fewer or smaller images"
    )


def invalid_form() -> RequestError:
    """400: an invalid percent escape in a form-encoded body."""
    return bad_request(
        "the form-encoded body contains an invalid percent escape",
        "send the image itself as the body",
    )


def invalid_query() -> RequestError:
    """400: an invalid percent escape in the query string."""
    return bad_request(
        "the query string contains an invalid percent escape", "write a percent sign as %25"
    )


def invalid_token() -> RequestError:
    """400, TorchServe's own status: the server requires a token and did not get a valid one."""
    return bad_request(
        "the token is missing, wrong or expired", "send the header Authorization: Bearer TOKEN"
    )


def malformed_request() -> RequestError:
    """400: TorchServe could not parse the request."""
    return bad_request(
        "the request could not be parsed",
        "check the method, the path and the headers against the API documentation",
    )


ERROR_OF_STATUS: dict[int, Callable[[], RequestError]] = {
    404: not_found,
    405: method_not_allowed,
    413: body_too_large,
}
# Keyed by TorchServe's names of errors that the client or the load caused, whatever their status.
ERROR_OF_TYPE: dict[str, Callable[[], RequestError]] = {
    "ServiceUnavailableException": queue_full,
    "ErrorDataDecoderException": invalid_form,
    "IllegalArgumentException": invalid_query,
    "InvalidKeyException": invalid_token,
}


def _status(head: Head) -> int | None:
    version, _, rest = head.start_line.partition(" ")
    return int(rest[:3]) if version == "HTTP/1.1" and rest[:3].isdecimal() else None


def _may_be_replaced(status: int, head: Head, length: int) -> bool:
    if length > (MAX_ERROR_BYTES if status >= HTTPStatus.BAD_REQUEST else MAX_HEALTH_BYTES):
        return False
    return not length or head.values("content-type") == ["application/json"]
