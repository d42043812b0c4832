"""A client that sends each request once, and in manners that no library has.

Under gevent, as in the generator, its waiting holds nobody up.
"""

import socket
import struct
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from urllib.parse import urlsplit

from bench.load.answers import NO_ANSWER, Reply
from bench.load.replies import CHUNK_BYTES, parsed, read_all, read_one
from bench.load.requests import (
    CLOSED,
    CRAWLING,
    KEPT,
    LEAVING_EARLY,
    LEAVING_LATE,
    RAW,
    Request,
)
from handler.lifecycle.http1 import Head

CRAWLED_BYTES = 5
CRAWLING_PAUSE_S = 1.0


class Connection:
    """One client of a server, with a connection that it keeps; sends one request at a time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = parts.path
        self._timeout_s = timeout_s
        self._kept: socket.socket | None = None
        self._manners = {
            KEPT: self._keep,
            CLOSED: self._ask_once,
            CRAWLING: self._crawl,
            LEAVING_EARLY: self._leave_early,
            LEAVING_LATE: self._leave_late,
        }

    def send(self, request: Request, body: bytes) -> Reply:
        """Sends it in its manner; a connection that fails is no answer, as one that is left."""
        if request.manner == RAW:
            return self._ask_once(body)
        fields = dict(request.headers) | {"Content-Length": str(len(body))}
        if request.manner != KEPT:
            fields["Connection"] = "close"
        message = self._head(fields) + body
        return self._manners[request.manner](message)

    def close(self) -> None:
        """Ends the connection that is kept, if there is one."""
        if self._kept:
            self._kept.close()
        self._kept = None

    def _head(self, fields: Mapping[str, str]) -> bytes:
        host = ":".join(map(str, self._address))
        return Head(f"POST {self._path} HTTP/1.1", (("Host", host), *fields.items())).encoded()

    def _keep(self, message: bytes) -> Reply:
        surplus = self._surplus()
        reply = Reply()
        with suppress(OSError):
            if self._kept is None:
                self._kept = self._connect()
            self._kept.sendall(message)
            reply = read_one(self._kept)
        if reply.status == NO_ANSWER or reply.last:
            self.close()
        return reply._replace(surplus=surplus + reply.surplus)

    def _surplus(self) -> int:
        """How much has come that nobody asked for; a connection that the server ended is closed."""
        if self._kept is None:
            return 0
        self._kept.settimeout(0)
        try:
            found = self._kept.recv(CHUNK_BYTES)
        except BlockingIOError:
            self._kept.settimeout(self._timeout_s)
            return 0
        except OSError:
            found = b""
        self.close()
        return len(found)

    def _ask_once(self, message: bytes) -> Reply:
        with suppress(OSError), closing(self._connect()) as connection:
            # What is refused before it has been read is answered all the same.
            with suppress(OSError):
                connection.sendall(message)
            return parsed(read_all(connection))
        return Reply()

    def _crawl(self, message: bytes) -> Reply:
        with suppress(OSError), closing(self._connect()) as connection:
            for position in range(CRAWLED_BYTES):
                connection.sendall(message[position : position + 1])
                time.sleep(CRAWLING_PAUSE_S)
            _reset(connection)
        return Reply()

    def _leave_early(self, message: bytes) -> Reply:
        with suppress(OSError), closing(self._connect()) as connection:
            connection.sendall(message[: len(message) // 2])
            _reset(connection)
        return Reply()

    def _leave_late(self, message: bytes) -> Reply:
        with suppress(OSError), closing(self._connect()) as connection:
            connection.sendall(message)
            connection.recv(1)
            _reset(connection)
        return Reply()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, self._timeout_s)


def _reset(connection: socket.socket) -> None:
    """Lets the coming close be that of a process that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
