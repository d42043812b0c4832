"""h11's parser of HTTP/1.1, without its tolerance of ambiguous requests."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11

from d2serve.errors import RequestError, bad_request, headers_too_large

HEAD_END = b"\r\n\r\n"
# The first of these is the end of a head, or makes it invalid.
HEAD_END_OR_INVALID = re.compile(
    rb"\r\n\r\n|(?<!\r)\n|\r\n[ \t]|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)


class Connection(h11.Connection):
    """h11's parser, which also rejects what other servers understand differently.

    Args:
        head_bytes: maximum size of a request's head.
        is_rejected: called with each request; returns whether it has its response already. Then
            the parser returns no event for it, and the rest of its body is to be dropped.

    Attributes:
        error: the response to the malformed request; None before there is one.
        body_left: number of bytes of the body that have not been parsed; 0 if it is chunked.
    """

    def __init__(self, head_bytes: int, is_rejected: Callable[[h11.Request], bool]) -> None:
        super().__init__(h11.SERVER, head_bytes)
        self._head_bytes = head_bytes
        self._is_rejected = is_rejected
        self._last_bytes = b""
        self.is_chunked = False
        self.body_left = 0
        self.error: RequestError | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._last_bytes = self._last_bytes[-len(HEAD_END) :] + data
        super().receive_data(data)

    def next_event(self) -> Any:
        """Return the next event of the client's side.

        Raises:
            h11.RemoteProtocolError: the request is malformed.
        """
        try:
            if self.their_state is h11.IDLE:
                _check_line_ends(self.trailing_data[0])
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._begin(event)
                if self._is_rejected(event):
                    return self.next_event()
            elif isinstance(event, h11.Data):
                self.body_left -= len(event.data)
            elif isinstance(event, h11.EndOfMessage) and self.is_chunked:
                self._check_trailer()
        except h11.RemoteProtocolError as error:
            is_too_large = error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.error = headers_too_large(self._head_bytes) if is_too_large else malformed()
            raise
        return event

    def _begin(self, request: h11.Request) -> None:
        fields = dict(request.headers)
        self.is_chunked = b"transfer-encoding" in fields
        self.body_left = 0 if self.is_chunked else int(fields.get(b"content-length", 0))
        if self.is_chunked and b"content-length" in fields:
            raise h11.RemoteProtocolError("Transfer-Encoding and Content-Length")
        if request.http_version not in (b"1.1", b"1.0"):
            raise h11.RemoteProtocolError("not HTTP/1")

    def _check_trailer(self) -> None:
        """Reject a line feed alone as the end of the trailer, which h11 accepts."""
        consumed = self._last_bytes[: len(self._last_bytes) - len(self.trailing_data[0])]
        if not consumed.endswith(HEAD_END):
            raise h11.RemoteProtocolError("a line feed alone at the end of the trailer")


def malformed() -> RequestError:
    """400: the request is not valid HTTP/1.1."""
    return bad_request(
        "the request is not valid HTTP/1.1",
        "check the request line, the headers and the framing of the body (RFC 9112)",
    )


def _check_line_ends(head: bytes) -> None:
    """Reject line ends and characters that h11 accepts and other servers understand differently.

    Args:
        head: what has arrived of a head, and possibly bytes after it.

    Raises:
        h11.RemoteProtocolError: the head contains a line feed alone, a folded line or a control
            character.
    """
    found = HEAD_END_OR_INVALID.search(head)
    if found and found[0] != HEAD_END:
        raise h11.RemoteProtocolError("an invalid line end or character")
