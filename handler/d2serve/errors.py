"""The error hierarchy."""

from http import HTTPStatus
from typing import Any

# Statuses and codes of the contract.
CODES = (
    (400, "bad_request"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (406, "not_acceptable"),
    (413, "too_large"),
    (415, "unsupported_media_type"),
    (422, "unprocessable"),
    (500, "internal"),
    (503, "overloaded"),
    (507, "out_of_memory"),
)
# Seconds that a client is asked to wait after a 503.
RETRY_AFTER_S = 1


class RequestError(Exception):
    """A request, or one picture of it, that gets an error instead of an answer.

    Args:
        status: HTTP status.
        code: a name for programs, one of the contract's (`bad_request`, `too_large`, ...).
        message: what is wrong, for people; never holds a path, a stack trace or the payload.
        hint: how to mend it.
    """

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint

    def headers(self) -> dict[str, str]:
        """The header fields that go with it, apart from the body's."""
        return (
            {"Retry-After": str(RETRY_AFTER_S)}
            if self.status == HTTPStatus.SERVICE_UNAVAILABLE
            else {}
        )

    def body(self) -> dict[str, Any]:
        """The contract's error body."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


def bad_request(message: str, hint: str) -> RequestError:
    """400: the body, a header or an option is not as it must be."""
    return RequestError(400, "bad_request", message, hint)


def not_found() -> RequestError:
    """404: no such route, or no such model."""
    return RequestError(
        404, "not_found", "there is no such route or model", "POST pictures to /invocations"
    )


def method_not_allowed() -> RequestError:
    """405: the route is there, the method is not."""
    return RequestError(
        405, "method_not_allowed", "the route does not have this method", "POST pictures to it"
    )


def not_acceptable(message: str, hint: str) -> RequestError:
    """406: no supported type in Accept."""
    return RequestError(406, "not_acceptable", message, hint)


def too_large(message: str, hint: str) -> RequestError:
    """413: more bytes, pixels or pictures than the settings allow."""
    return RequestError(413, "too_large", message, hint)


def unsupported_media_type(message: str, hint: str) -> RequestError:
    """415: a Content-Type or bytes of no known format."""
    return RequestError(415, "unsupported_media_type", message, hint)


def unprocessable(message: str, hint: str) -> RequestError:
    """422: decodes, but cannot be a picture."""
    return RequestError(422, "unprocessable", message, hint)


def overloaded(message: str) -> RequestError:
    """503: nothing is wrong with the request, but the server has no time for it now."""
    return RequestError(503, "overloaded", message, "send it again a little later")


def out_of_memory() -> RequestError:
    """507: one picture alone does not fit the device."""
    return RequestError(
        507, "out_of_memory", "the picture does not fit the device's memory", "send a smaller one"
    )


def internal() -> RequestError:
    """500: a fault of ours; says nothing of its cause."""
    return RequestError(
        500, "internal", "the server failed on this request", "try again; the server's log has more"
    )


class CommandError(Exception):
    """An expected failure: its message names the thing and the fix."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read safely or does not fit the network."""
