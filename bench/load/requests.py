"""What a load generator may send, and in what manner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# In a body, a text that each request replaces by one of its own. Where the answer has that one, the
# mark is put back, so that an answer to another request can be told.
MARK = b"mark-of-a-request-0000000000000000"

# By locust's own client. It sends a request again whose connection broke before its answer.
LIBRARY = "library"
# Over the client's own connection, which stays open; nothing is ever sent twice.
KEPT = "kept"
# Over a connection for this request alone, which is read to its end.
CLOSED = "closed"
# The body is all that is sent, the request line and fields included.
RAW = "raw"
# A byte a second, and then no more.
CRAWLING = "crawling"
# Gone in the middle of the request, and of the answer.
LEAVING_EARLY = "leaving early"
LEAVING_LATE = "leaving late"


@dataclass(frozen=True)
class Request:
    """One kind of request.

    Attributes:
        name: tells it from all others of a plan.
        file: the path of its body.
        headers: all of them but for Host, Content-Length and Connection.
        manner: one of the constants above.
    """

    name: str
    file: str
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: str = LIBRARY


@dataclass(frozen=True)
class Group:
    """Requests that come in shuffled rounds; `share` is the group's weight beside the others."""

    share: float
    requests: Sequence[Request]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Group":
        """The group that `dataclasses.asdict` wrote."""
        return cls(content["share"], [Request(**request) for request in content["requests"]])
