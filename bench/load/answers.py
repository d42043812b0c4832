"""What a load generator notes of each request."""

from http import HTTPStatus
from typing import NamedTuple

NO_ANSWER = 0
# How each format begins and, where it can be told, ends.
WHOLE = (
    (b"{", b"}"),
    (b"[", b"]"),
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG", b"IEND\xaeB`\x82"),
    (b"\x93NUMPY", b""),
    (b"PK\x03\x04", b""),
)
WHITESPACE = b" \r\n\t"


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP's; NO_ANSWER where none came.
        body: of the answer.
        whole: whether the body is as long as the answer said, and a whole one of its format.
        request_id: the server's name for the request, "" without one.
        surplus: bytes that had come on the connection before the request, or came after its answer.
        last: whether the server said that it takes no other request on the connection.
    """

    status: int = NO_ANSWER
    body: bytes = b""
    whole: bool = False
    request_id: str = ""
    surplus: int = 0
    last: bool = False


class Answer(NamedTuple):
    """One request; times in seconds, 0 being where the measured window begins.

    Attributes:
        due: when it was meant to be sent.
        done: when the answer was complete, or the connection failed; None where the request was
            still waiting when the run ended.
        status, whole, request_id, surplus: see `Reply`.
        name: of the request in the plan.
        digest: of the body; "" where none was kept.
    """

    due: float
    done: float | None
    status: int
    whole: bool
    name: str = ""
    digest: str = ""
    request_id: str = ""
    surplus: int = 0

    @property
    def good(self) -> bool:
        """Whether it counts as throughput."""
        return self.status == HTTPStatus.OK and self.whole


def is_whole(body: bytes) -> bool:
    """Whether a body begins and ends as JSON, JPEG, PNG, NPY or NPZ does."""
    text = body.rstrip(WHITESPACE)
    return any(text.startswith(begin) and text.endswith(end) for begin, end in WHOLE)
