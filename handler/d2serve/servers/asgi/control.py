"""Messages between the supervisor and the server process."""

import json
import socket
from collections.abc import Iterator
from typing import Any


class Control:
    """One end of a connection for JSON messages, one a line.

    Its closing tells each side that the other process has ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """The file descriptor, readable when the other side has closed."""
        return self._connection.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; the other process may have ended already."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the other side closes."""
        with self._connection.makefile("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
