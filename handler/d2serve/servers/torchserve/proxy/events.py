"""Reports of the responses that no worker has made, as datagrams from the proxy to a worker.

The proxy has no log and no metrics of its own: a worker logs and counts these responses.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import Any

from d2serve.errors import ProxyError

SUFFIX = ".events"
MAX_EVENT_BYTES = 4096
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE")
OTHER = "other"
OK = "ok"


@dataclass
class RequestFacts:
    """The loggable part of a request: never a client's own text.

    Attributes:
        request_id: the proxy's identifier of the request; TorchServe gives those that it processes
            one of its own.
        method: one of METHODS, or `other`.
        route: the template of the route, or `other`.
        body_bytes: number of bytes of the body received.
        started: time of its first byte, by `time.monotonic`.
    """

    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    method: str = OTHER
    route: str = OTHER
    body_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    def entry(self, status: int, code: str) -> dict[str, Any]:
        """The line of the log for a response."""
        return {
            "event": "proxy_response",
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "id": self.request_id,
            "status": status,
            "code": code,
            "method": self.method,
            "route": self.route,
            "bytes_in": self.body_bytes,
            "total_ms": round(1000 * (time.monotonic() - self.started), 2),
        }


class EventSender:
    """Sends events to the first worker that receives them; drops them if none does.

    Args:
        folder: contains one socket for each worker.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()

    def send(self, entry: dict[str, Any]) -> None:
        """Send an event without waiting."""
        datagram = json.dumps(entry).encode("ascii")
        for receiver in sorted(self._folder.glob(f"*{SUFFIX}")):
            if self._send(datagram, receiver):
                return

    def _send(self, datagram: bytes, receiver: Path) -> bool:
        try:
            self._socket.sendto(datagram, str(receiver))
        except (ConnectionRefusedError, FileNotFoundError):  # the worker has exited
            receiver.unlink(missing_ok=True)
        except OSError:  # its queue is full
            return False
        else:
            return True
        return False


class EventReceiver:
    """Receives the proxy's events in a worker, on a thread of its own.

    Args:
        folder: the runtime folder.
        on_event: called with each event.

    Raises:
        ProxyError: the socket cannot be created.
    """

    def __init__(self, folder: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._on_event = on_event
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = folder / f"{os.getpid()}{SUFFIX}"
        path.unlink(missing_ok=True)  # of an earlier process with this id
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise ProxyError(
                f"{path} cannot be created ({error}); set TMPDIR to a shorter path"
            ) from error
        Thread(target=self._receive, name="proxy events", daemon=True).start()

    def _receive(self) -> None:
        while True:
            self._on_event(json.loads(self._socket.recv(MAX_EVENT_BYTES)))
