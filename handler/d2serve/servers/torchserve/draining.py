"""Finish running requests when TorchServe is told to stop."""

import json
import logging
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
# Where TorchServe has written its tokens, if it asks for any.
KEY_FILE = "D2SERVE_KEY_FILE"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
CONNECT_TIMEOUT_S = 5.0
# TorchServe hands a waiting batch on within milliseconds.
QUIET_S = 0.5
POLL_S = 0.05
NO_HEADERS: Mapping[str, str] = {}


class Activity:
    """Whether a worker has had requests lately; used as a context manager around each batch."""

    def __init__(self) -> None:
        self._running = 0
        self._ended = time.monotonic()

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        self._ended = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since the last batch ended; 0 while one runs."""
        return 0.0 if self._running else time.monotonic() - self._ended


class Draining:
    """Holds TorchServe back from stopping until a worker has been idle for a moment."""

    def __init__(
        self,
        activity: Activity,
        *,
        port: int,
        at_most_s: float,
        on_stop: Callable[[], None] | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Connects to TorchServe's gRPC inference port on this machine.

        Args:
            activity: what the worker is doing.
            port: TorchServe's gRPC inference port.
            at_most_s: seconds after which TorchServe may stop all the same.
            on_stop: called when TorchServe has been told to stop.
            headers: what TorchServe asks for beside, such as a token.

        Raises:
            OSError: nothing listens at the port.
        """
        self._activity = activity
        self._at_most_s = at_most_s
        self._on_stop = on_stop
        self._connection = socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S)
        self._connection.settimeout(None)
        http2.open_call(self._connection, PING, headers)
        threading.Thread(target=self._watch, name="draining", daemon=True).start()

    def _watch(self) -> None:
        # A server that is gone needs no holding.
        with suppress(ConnectionError), self._connection:
            for frame in http2.frames(self._connection):
                if frame.kind == http2.GOAWAY:
                    if self._on_stop:
                        self._on_stop()
                    self._wait_until_idle()
                    return
                if frame.ends_call:
                    logger.warning("TorchServe refused to be held: SIGTERM will not wait")
                    return

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + self._at_most_s
        while self._activity.idle_s() < QUIET_S and time.monotonic() < deadline:
            time.sleep(POLL_S)


def hold_while_busy(
    activity: Activity,
    environment: Mapping[str, str],
    at_most_s: float,
    on_stop: Callable[[], None] | None = None,
) -> Draining | None:
    """Starts draining; None, and a line in the log, where TorchServe's gRPC port is not found."""
    port = int(environment.get(GRPC_PORT, DEFAULT_GRPC_PORT))
    try:
        return Draining(
            activity,
            port=port,
            at_most_s=at_most_s,
            on_stop=on_stop,
            headers=_authorization(environment),
        )
    except OSError as error:
        logger.warning("no gRPC at port %d (%s): SIGTERM will not wait for requests", port, error)
        return None


def _authorization(environment: Mapping[str, str]) -> dict[str, str]:
    key_file = Path(environment.get(KEY_FILE, ""))
    if not key_file.is_file():
        return {}
    token = json.loads(key_file.read_text(encoding="utf-8"))["inference"]["key"]
    return {"authorization": f"Bearer {token}"}
