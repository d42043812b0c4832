"""Finish running requests when TorchServe is stopped.

On SIGTERM TorchServe first shuts down its gRPC server, which waits for open calls, and drops queued
requests after that. An open call therefore delays the shutdown until the worker is idle.
"""

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from d2serve.servers.torchserve import http2

logger = logging.getLogger(__name__)
GRPC_PORT = "TS_GRPC_INFERENCE_PORT"
DEFAULT_GRPC_PORT = "7070"
# The file that TorchServe writes its tokens to, if it requires tokens.
KEY_FILE = "D2SERVE_KEY_FILE"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
CONNECT_TIMEOUT_S = 5.0
# A server that shuts down ends a new connection within milliseconds.
CONFIRM_S = 1.0
# TorchServe passes a waiting batch to the worker within milliseconds.
IDLE_S = 0.5
POLL_S = 0.05
NO_HEADERS: Mapping[str, str] = {}


class Activity:
    """The time since a worker's last batch; a context manager around each batch."""

    def __init__(self) -> None:
        self._running = 0
        self._last_end = time.monotonic()

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        self._last_end = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since the end of the last batch; 0 while one runs."""
        return 0.0 if self._running else time.monotonic() - self._last_end


def start_draining(
    activity: Activity,
    environment: Mapping[str, str],
    timeout_s: float,
    on_stop: Callable[[], None] | None = None,
) -> "Draining | None":
    """Delay TorchServe's shutdown until the worker is idle.

    Args:
        activity: the worker's activity.
        environment: may name TorchServe's gRPC port and its key file.
        timeout_s: seconds after which TorchServe may stop even if the worker is busy.
        on_stop: called when TorchServe starts to shut down.

    Returns:
        None, after a warning in the log, if nothing listens at TorchServe's gRPC port.
    """
    port = int(environment.get(GRPC_PORT, DEFAULT_GRPC_PORT))
    headers = _authorization(environment)
    try:
        return Draining(activity, port, timeout_s, on_stop, headers)
    except OSError as error:
        logger.warning(
            "cannot connect to TorchServe's gRPC port %d (%s): SIGTERM will not wait for requests",
            port,
            error,
        )
        return None


class Draining:
    """An open gRPC call that delays TorchServe's shutdown until the worker is idle.

    Args:
        activity: the worker's activity.
        port: TorchServe's gRPC inference port on this machine.
        timeout_s: seconds after which TorchServe may stop even if the worker is busy.
        on_stop: called when TorchServe starts to shut down.
        headers: additional headers of the call, such as a token.

    Raises:
        OSError: nothing listens at the port.
    """

    def __init__(
        self,
        activity: Activity,
        port: int,
        timeout_s: float,
        on_stop: Callable[[], None] | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self._activity = activity
        self._port = port
        self._timeout_s = timeout_s
        self._on_stop = on_stop
        self._headers = headers
        connection = self._open_call()
        threading.Thread(
            target=self._watch, args=(connection,), name="draining", daemon=True
        ).start()

    def _open_call(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), CONNECT_TIMEOUT_S)
        connection.settimeout(None)
        http2.open_call(connection, PING, self._headers)
        return connection

    def _watch(self, connection: socket.socket) -> None:
        """Keep a call open until the server shuts down or ends it."""
        while True:
            with connection:
                if not _receives_goaway(connection):
                    return
                following = self._reconnect()
                if following is None:
                    if self._on_stop:
                        self._on_stop()
                    self._wait_until_idle()
                    return
            connection = following

    def _reconnect(self) -> socket.socket | None:
        """Open another call; None if the server shuts down.

        A server may send GOAWAY for other reasons, such as the age of a connection. One that shuts
        down accepts no connection, or ends it at once.
        """
        try:
            connection = self._open_call()
        except OSError:
            return None
        if not _is_accepted(connection):
            connection.close()
            return None
        logger.info("TorchServe ended a gRPC connection without shutting down; connected again")
        return connection

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._activity.idle_s() < IDLE_S and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _receives_goaway(connection: socket.socket) -> bool:
    """Return at GOAWAY; False if the call ends before, or the connection with the server."""
    with suppress(ConnectionError):
        while frame := http2.read_frame(connection):
            if frame.kind == http2.GOAWAY:
                return True
            if frame.ends_call:
                logger.warning(
                    "TorchServe ended the gRPC call that delays its shutdown: "
                    "SIGTERM will not wait for requests"
                )
                return False
    return False


def _is_accepted(connection: socket.socket) -> bool:
    """True if the server does not end a new connection within CONFIRM_S."""
    deadline = time.monotonic() + CONFIRM_S
    try:
        while select.select([connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
            frame = http2.read_frame(connection)
            if frame is None or frame.kind == http2.GOAWAY:
                return False
    except ConnectionError:
        return False
    return True


def _authorization(environment: Mapping[str, str]) -> dict[str, str]:
    key_file = Path(environment.get(KEY_FILE, ""))
    if not key_file.is_file():
        return {}
    token = json.loads(key_file.read_text(encoding="utf-8"))["inference"]["key"]
    return {"authorization": f"Bearer {token}"}
