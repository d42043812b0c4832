"""The error hierarchy of d2serve.

Errors of models, images, options, settings and commands derive from `D2ServeError`; wrong types of
Python arguments are `TypeError`s and `ValueError`s::

    D2ServeError
    ├── RequestError               one request, or one image of it, fails: HTTP status and code
    │   └── ImageError             an image passed to `Model.predict` cannot be used
    ├── ConfigError                a model config cannot be read or is not supported
    │   └── UnsupportedConfigError our own network does not support a model config
    ├── CheckpointError            weights cannot be read safely or do not match the network
    ├── ClassNamesError            class names cannot be read or do not match the model
    ├── SettingsError              an operator's setting is unknown or out of range
    ├── ArchiveError               an archive is damaged, changed or incomplete
    ├── RuntimeUnavailableError    the model needs `detectron2`, which cannot be imported
    ├── ProxyError                 the reverse proxy cannot open its public port
    └── CommandError               a command was called wrongly or cannot do its work
        ├── ClientError            a client did not get predictions
        │   ├── PredictionError    the server rejected the request or closed the connection
        │   └── UnreachableError   no server or endpoint at the URL
        ├── AwsError               a call to AWS failed
        ├── UnsettledError         AWS is still applying a change, so it cannot be rolled back
        ├── ServerError            a local server did not start or stopped
        └── ContainerError         a local container did not start or stopped

`ConfigError`, `CheckpointError`, `ClassNamesError` and `SettingsError` are also `ValueError`s;
`ArchiveError`, `RuntimeUnavailableError` and `ProxyError` are also `RuntimeError`s.

`DeviceLostError` is separate: it is a `BaseException`, because the process cannot continue and
handlers of ordinary errors must not catch it.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

# Status and code of every error response; 499 is for logs and metrics only.
CODES = (
    (400, "bad_request"),
    (401, "unauthorized"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (406, "not_acceptable"),
    (408, "request_timeout"),
    (413, "too_large"),
    (415, "unsupported_media_type"),
    (422, "unprocessable"),
    (431, "headers_too_large"),
    (499, "client_closed_request"),
    (500, "internal"),
    (503, "overloaded"),
    (507, "out_of_memory"),
)
CLIENT_CLOSED_REQUEST = 499
# Responses after which a client may send the same request again.
TEMPORARY_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
# AWS's codes for a resource that does not exist.
NOT_FOUND_CODES = ("404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "ResourceNotFoundException")


class D2ServeError(Exception):
    """Base class of the errors that d2serve raises on purpose."""


class RequestError(D2ServeError):
    """An error response for one request, or for one image of it.

    Args:
        status: the HTTP status.
        code: the contract's code for programs, such as `bad_request` or `too_large`.
        message: the problem in plain English; never contains a path, a stack trace or the payload.
        hint: how to fix it.
        headers: header fields of the response, except those that describe the body.

    Examples:
        >>> error = too_large("the body has 5 bytes, the limit is 4", "send a smaller image")
        >>> error.status, error.code
        (413, 'too_large')
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message, hint, headers)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message

    def body(self, *, is_open_inference: bool = False) -> dict[str, Any]:
        """The contract's error body, or that of the Open Inference Protocol."""
        if is_open_inference:
            return {"error": f"{self.message}; {self.hint}"}
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


class ImageError(RequestError):
    """An image passed to `Model.predict` that cannot be used.

    Args:
        error: the error of the image.
        position: the image's index among the images passed, from 0.

    Examples:
        >>> str(ImageError(bad_request("the image is damaged", "use the complete file"), 3))
        'image 3: the image is damaged; use the complete file'
    """

    def __init__(self, error: RequestError, position: int) -> None:
        message = f"image {position}: {error.message}"
        super().__init__(error.status, error.code, message, error.hint, error.headers)
        self.position = position
        # The arguments of this constructor, for copies and pickles.
        self.args = (error, position)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


def bad_request(message: str, hint: str) -> RequestError:
    """400: the body, a header or an option is malformed."""
    return RequestError(400, "bad_request", message, hint)


def unauthorized() -> RequestError:
    """401: the server requires a token, and the request has no valid one."""
    return RequestError(
        401,
        "unauthorized",
        "the token is missing, wrong or expired",
        "send the header Authorization: Bearer TOKEN",
        {"WWW-Authenticate": "Bearer"},
    )


def not_found() -> RequestError:
    """404: the route or the model does not exist."""
    return RequestError(
        404, "not_found", "the route or model does not exist", "POST images to /invocations"
    )


def method_not_allowed(*accepted: str) -> RequestError:
    """405: the route exists, but only with the `accepted` methods, POST by default."""
    methods = accepted or ("POST",)
    return RequestError(
        405,
        "method_not_allowed",
        "the route does not accept this method",
        f"use {' or '.join(methods)}",
        {"Allow": ", ".join(methods)},
    )


def not_acceptable(message: str, hint: str) -> RequestError:
    """406: Accept lists no supported type."""
    return RequestError(406, "not_acceptable", message, hint)


def too_large(message: str, hint: str) -> RequestError:
    """413: more bytes, pixels or images than the settings allow."""
    return RequestError(413, "too_large", message, hint)


def unsupported_media_type(message: str, hint: str) -> RequestError:
    """415: a Content-Type or a file format that is not supported."""
    return RequestError(415, "unsupported_media_type", message, hint)


def unprocessable(message: str, hint: str) -> RequestError:
    """422: decodes, but cannot be an image."""
    return RequestError(422, "unprocessable", message, hint)


def request_timeout(message: str, hint: str) -> RequestError:
    """408: the request did not arrive in time."""
    return RequestError(408, "request_timeout", message, hint)


def headers_too_large(limit: int) -> RequestError:
    """431: the request's head has more than `limit` bytes."""
    return RequestError(
        431,
        "headers_too_large",
        f"the request line and headers have more than {limit} bytes",
        "send fewer or shorter headers, such as cookies",
    )


def client_closed() -> RequestError:
    """499: the client has disconnected, so that the response has no receiver."""
    return RequestError(
        CLIENT_CLOSED_REQUEST,
        "client_closed_request",
        "the client has disconnected",
        "keep the connection open until the response arrives",
    )


def overloaded(message: str, retry_after_s: int = 1) -> RequestError:
    """503: the request is valid, but the server has no capacity for it now."""
    return RequestError(
        503,
        "overloaded",
        message,
        "send the request again later",
        {"Retry-After": str(retry_after_s)},
    )


def out_of_memory() -> RequestError:
    """507: a single image needs more memory than the device has."""
    return RequestError(
        507,
        "out_of_memory",
        "the image needs more memory than the device has",
        "send a smaller image",
    )


def internal() -> RequestError:
    """500: an unexpected error; the message does not disclose its cause."""
    return RequestError(
        500,
        "internal",
        "internal error while processing the request",
        "send the request again; the server's log has the details",
    )


class ConfigError(D2ServeError, ValueError):
    """A model config that cannot be read or requests something unsupported."""


class UnsupportedConfigError(ConfigError):
    """A model config that can be read, but that our own network does not support.

    Args:
        problems: a line for each unsupported key or value.
        notes: further lines: what is true of all problems, and how to fix them.
        package_may_run: whether the detectron2 package accepts these keys and values.

    Examples:
        >>> str(UnsupportedConfigError(["INPUT.FORMAT: 'YUV' (supported: 'BGR')"]))
        "this config is not supported: INPUT.FORMAT: 'YUV' (supported: 'BGR')"
    """

    def __init__(
        self, problems: Sequence[str], notes: Sequence[str] = (), *, package_may_run: bool = False
    ) -> None:
        super().__init__(tuple(problems), tuple(notes))
        self.problems = tuple(problems)
        self.notes = tuple(notes)
        self.package_may_run = package_may_run

    def __str__(self) -> str:
        separator = "\n  " if len(self.problems) > 1 else " "
        listed = f"this config is not supported:{separator}" + "\n  ".join(self.problems)
        return "\n".join([listed, *self.notes])


class CheckpointError(D2ServeError, ValueError):
    """Weights that cannot be read safely or do not match the network."""


class ClassNamesError(D2ServeError, ValueError):
    """Class names that cannot be read or do not match the model."""


class SettingsError(D2ServeError, ValueError):
    """An operator's setting that does not exist or is out of range."""


class ArchiveError(D2ServeError, RuntimeError):
    """An archive that is damaged, incomplete or different from what was built."""


class RuntimeUnavailableError(D2ServeError, RuntimeError):
    """The model needs the `detectron2` package, which is missing or cannot be imported."""


class ProxyError(D2ServeError, RuntimeError):
    """The reverse proxy cannot open its public port."""


class DeviceLostError(BaseException):
    """The process can no longer use its device: every later call would fail like this one.

    Not an `Exception`, so that code that isolates the failure of one image does not catch it.
    """


class CommandError(D2ServeError):
    """An expected failure of a command; the message names the cause and the fix."""


class ClientError(CommandError):
    """A client did not get predictions."""


class UnreachableError(ClientError):
    """No server or endpoint at the URL."""


class PredictionError(ClientError):
    """The server rejected a request or closed the connection.

    Attributes:
        status: the HTTP status; 0 without a response.
        code: the contract's code, such as `bad_request`.
        message: the problem.
        hint: how to fix it; may be empty.
        is_transient: whether the same request may succeed later.
        retry_after_s: seconds that the server demands until the next attempt, or 0.
        position: the image's index among the results of a call; None if there is one request only.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        *,
        is_transient: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(f"{code}: {message}" + (f" ({hint})" if hint else ""))
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.is_transient = is_transient or status in TEMPORARY_STATUSES
        self.retry_after_s = retry_after_s
        self.position: int | None = None

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.position is None else f"image {self.position}: {text}"


class AwsError(CommandError):
    """A failed call to AWS; `code` is AWS's own, or empty without a response."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def not_found(self) -> bool:
        """Return whether the resource does not exist."""
        missing = self.code == "ValidationException" and "Could not find" in str(self)
        return missing or self.code in NOT_FOUND_CODES


class UnsettledError(CommandError):
    """AWS is still applying a change, or is stuck; a rollback could stop what serves requests."""


class ServerError(CommandError):
    """A local server did not start, or stopped unexpectedly."""


class ContainerError(CommandError):
    """A local container did not start, or stopped unexpectedly."""
