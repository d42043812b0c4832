"""h11's parser of HTTP/1.1, without its tolerance of ambiguous requests.

Servers and proxies understand such requests differently, so that one of them could take a part of a
request's body for another request.
"""

import re
from http import HTTPStatus
from typing import Any

import h11

from d2serve.errors import RequestError, bad_request, headers_too_large

HEAD_END = b"\r\n\r\n"
VERSIONS = (b"1.0", b"1.1")
# The first of these is the end of a head, or makes it invalid: a line feed or a carriage return
# alone, a folded line, or a control character.
HEAD_END_OR_INVALID = re.compile(
    rb"\r\n\r\n|(?<!\r)\n|\r\n[ \t]|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)


class StrictConnection(h11.Connection):
    """The server's side of a connection.

    Args:
        max_head_bytes: maximum size in bytes of a request's head.

    Attributes:
        error: the response to the malformed request; None before there is one.
        is_chunked: whether the body of the current request is sent in chunks.
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self.error: RequestError | None = None
        self.is_chunked = False
        self._max_head_bytes = max_head_bytes
        self._last_bytes = b""

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self.is_chunked or self.their_state is h11.IDLE:
            self._last_bytes = self._last_bytes[-len(HEAD_END) :] + data
        super().receive_data(data)

    def next_event(self) -> Any:
        """Return the next event of the client's side.

        Raises:
            h11.RemoteProtocolError: the request is malformed; `error` is the response.
        """
        try:
            if self.their_state is h11.IDLE:
                find_head_end(self.trailing_data[0], self._max_head_bytes)
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._check_request(event)
            elif isinstance(event, h11.EndOfMessage) and self.is_chunked:
                self._check_trailer()
        except RequestError as error:
            self.error = error
            raise h11.RemoteProtocolError(error.message, error.status) from error
        except h11.RemoteProtocolError as error:
            is_too_large = error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            # What follows a colon repeats what the client has sent.
            reason = str(error).partition(":")[0]
            self.error = malformed(
                "a chunk size or trailer is too large" if is_too_large else reason
            )
            raise
        return event

    def _check_request(self, request: h11.Request) -> None:
        names = [name for name, _ in request.headers]
        self.is_chunked = b"transfer-encoding" in names
        if self.is_chunked and b"content-length" in names:
            raise malformed("Transfer-Encoding and Content-Length are mutually exclusive")
        if request.http_version not in VERSIONS:
            raise malformed("the version is not 1.0 or 1.1")

    def _check_trailer(self) -> None:
        """Reject a line feed alone as the end of the trailer, which h11 accepts."""
        consumed = self._last_bytes[: len(self._last_bytes) - len(self.trailing_data[0])]
        if not consumed.endswith(HEAD_END):
            raise malformed("the end of the chunked body is invalid")


def find_head_end(received: bytes | bytearray, max_bytes: int, start: int = 0) -> int:
    """Return the size in bytes of a request's head; 0 if its end has not arrived.

    Args:
        received: the beginning of a head, and possibly bytes after it.
        max_bytes: maximum size of a head.
        start: number of bytes that an earlier call has examined.

    Raises:
        RequestError: 431 the head is too large, 400 it contains a line end or a character that h11
            accepts and other servers understand differently.

    Examples:
        >>> find_head_end(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\nrest", 8000)
        27
    """
    found = HEAD_END_OR_INVALID.search(received, max(0, start - len(HEAD_END)))
    if (found.end() if found else len(received)) > max_bytes:
        raise headers_too_large(max_bytes)
    if found and found[0] != HEAD_END:
        raise malformed("the head contains an invalid line end or character")
    return found.end() if found else 0


def malformed(problem: str) -> RequestError:
    """400: the request is not valid HTTP/1.1.

    Args:
        problem: the reason, without text of the client.
    """
    return bad_request(
        f"the request is not valid HTTP/1.1: {problem}",
        "check the request line, the headers and the framing of the body (RFC 9112); TLS needs "
        "https",
    )
