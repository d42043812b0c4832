"""Requests of the load generator, and its replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Text in a body that each request replaces by one of its own; in the response it is put back, so
# that a response to another request shows.
MARK = b"mark-of-a-request-0000000000000000"
NO_RESPONSE = 0

# Client behaviours: over the client's kept connection, by httpx;
KEPT = "kept"
# over a connection for this request alone, read to its end;
CLOSED = "closed"
# where the body is all that is sent, request line and headers included;
RAW = "raw"
# a byte per second, then a reset;
SLOW = "slow"
# a reset in the middle of the request, or of the response.
RESET_EARLY = "reset early"
RESET_LATE = "reset late"

# How the formats of responses start and end, where that is known.
FORMATS = (
    (b"{", b"}"),
    (b"[", b"]"),
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG", b"IEND\xaeB`\x82"),
    (b"\x93NUMPY", b""),
    (b"PK\x03\x04", b""),
)


@dataclass(frozen=True)
class Request:
    """A POST; `name` is unique within a run, headers lack Host, Content-Length and Connection."""

    name: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    behaviour: str = KEPT


@dataclass(frozen=True)
class Group:
    """Requests that are sent in shuffled rounds, with the group's share of all requests."""

    share: float
    requests: Sequence[Request]


class Reply(NamedTuple):
    """Response to a request.

    Attributes:
        status: of HTTP; NO_RESPONSE where there is none.
        body: as received.
        whole: whether the body is complete by HTTP and by its format.
        request_id: the server's id of the request, or "".
        surplus: bytes that were received beyond one response.
    """

    status: int = NO_RESPONSE
    body: bytes = b""
    whole: bool = False
    request_id: str = ""
    surplus: int = 0


def is_whole(body: bytes) -> bool:
    """Whether a body starts and ends as JSON, JPEG, PNG, NPY or NPZ does."""
    text = body.rstrip(b" \r\n\t")
    return any(text.startswith(start) and text.endswith(end) for start, end in FORMATS)
