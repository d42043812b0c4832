"""The parser of a connection, which also rejects requests before the application does."""

from collections.abc import Callable
from typing import Any

import h11

from d2serve.errors import method_not_allowed
from d2serve.servers.strict_http import StrictConnection


class Connection(StrictConnection):
    """A strict parser that answers some requests by their head alone.

    Args:
        head_bytes: maximum size of a request's head.
        is_rejected: called with each request; returns whether it has its response already. Then
            the parser returns no event for it, and the rest of its body is to be dropped.

    Attributes:
        body_left: number of bytes of the body that have not been parsed; 0 if it is chunked.
    """

    def __init__(self, head_bytes: int, is_rejected: Callable[[h11.Request], bool]) -> None:
        super().__init__(head_bytes)
        self._is_rejected = is_rejected
        self.body_left = 0

    def next_event(self) -> Any:
        """Return the next event of the client's side.

        Raises:
            h11.RemoteProtocolError: the request is malformed or a CONNECT.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            if event.method == b"CONNECT":  # it is for proxies, and its target is not a path
                self.error = method_not_allowed("GET", "POST", "PUT")
                raise h11.RemoteProtocolError(self.error.message, self.error.status)
            length = dict(event.headers).get(b"content-length", 0)
            self.body_left = 0 if self.is_chunked else int(length)
            if self._is_rejected(event):
                return self.next_event()
        elif isinstance(event, h11.Data):
            self.body_left -= len(event.data)
        return event
