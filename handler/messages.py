"""A request and a response of any HTTP server, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from handler.telemetry.reports import RequestReport

# The header by which a front door says when a request arrived: seconds of this machine's monotonic
# clock, which all of its processes share.
ARRIVED = "x-d2serve-arrived"
# And by which it numbers its client, to tell later that the client has gone.
CLIENT = "x-d2serve-client"


@dataclass(frozen=True)
class Part:
    """One body: the whole request's, or one file of a multipart request.

    `content_type` is as the client sent it, empty where it sent none.
    """

    content_type: str
    body: bytes


@dataclass(frozen=True)
class HttpRequest:
    """Headers with lower-case names, and the parts that may hold pictures.

    `query` holds the query string's values, and a form's fields that are no files; `request_id`
    is the server's name for the request. `abandoned` says that its client has hung up.
    """

    headers: Mapping[str, str]
    parts: tuple[Part, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    abandoned: bool = False


@dataclass(frozen=True)
class HttpResponse:
    """Status, headers and body; `content_type` apart from the other headers.

    `report` tells the operator of the request; None where there was none to be made.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    report: RequestReport | None = None
