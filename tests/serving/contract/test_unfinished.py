"""Section 5 of the contract: requests that do not arrive in time.

They are sent before the first test of each server; this file is the last, so that none waits.
"""

import socket
from collections.abc import Callable, Sequence


def test_requests_that_do_not_arrive_in_time_are_408s(
    unfinished: Callable[[], Sequence[socket.socket]],
) -> None:
    """An incomplete head and an incomplete body."""
    for client in unfinished():
        with client.makefile("rb") as response:
            assert response.readline().startswith(b"HTTP/1.1 408 ")
            received = response.read()
        assert b'"code": "request_timeout"' in received
        assert b"connection: close" in received.lower()
