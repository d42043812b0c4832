"""What an operator may know of requests: never their content."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.telemetry.forwards import Forward
from handler.telemetry.times import StageTimes

OK = "ok"


@dataclass(frozen=True)
class Received:
    """A request before it is read.

    Attributes:
        request_id: the server's name for it.
        media_type: its Content-Type without parameters where that is a supported one, `none`
            where it has none, else `other`: what a client may write there stays out of logs.
        size: bytes of its body.
    """

    request_id: str
    media_type: str
    size: int


@dataclass(frozen=True)
class PictureReport:
    """One picture of a request.

    Attributes:
        width, height: in pixels; 0 where it could not be decoded.
        code: OK, or that of its error.
        instances: how many the network found, before the request's own options choose among them.
    """

    width: int = 0
    height: int = 0
    code: str = OK
    instances: int = 0


@dataclass(frozen=True)
class RequestReport:
    """One request and its response.

    Attributes:
        received: the request.
        status: HTTP status.
        code: OK, or the error's.
        message: the error's; empty without one.
        media_type: of the response.
        size: bytes of the response's body.
        pictures: in the order sent; none where the request could not be read.
        options: those that differ from the archive's defaults; as they were understood.
        times: of its stages.
    """

    received: Received
    status: int
    code: str
    message: str
    media_type: str
    size: int
    pictures: tuple[PictureReport, ...]
    options: Mapping[str, Any]
    times: StageTimes


@dataclass(frozen=True)
class BatchReport:
    """The requests that the server handed over together, and their forwards.

    `elapsed_ms` is the time from the batch's arrival until all its answers were ready, in
    milliseconds.
    """

    requests: tuple[RequestReport, ...]
    forwards: tuple[Forward, ...]
    elapsed_ms: float
