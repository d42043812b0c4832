"""The public port of a server whose own port only this machine can reach."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Thread
from typing import IO
from urllib.parse import urlsplit

from handler.lifecycle import relay_process
from handler.lifecycle.departures import Departures
from handler.lifecycle.limits import Limits
from handler.lifecycle.locks import FileLock

logger = logging.getLogger(__name__)

PUBLIC_ADDRESS = "D2SERVE_PUBLIC_ADDRESS"
SERVER_ADDRESS = "TS_INFERENCE_ADDRESS"
# PEM files; with them the public port speaks TLS, and TorchServe's own need not.
CERTIFICATE = "D2SERVE_CERTIFICATE"
KEY = "D2SERVE_CERTIFICATE_KEY"
PACKAGE = Path(__file__).resolve().parent.parent
# Isolated from whatever lies in the working folder and on PYTHONPATH.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from handler.lifecycle.relay_process import run; run()"
)
# A relay that has ended is replaced within moments, unless somebody else has taken its port.
REOPENING_S = 30.0
REOPENING_PAUSE_S = 0.5
NO_BOUNDS_GIVEN = Limits()
EXAMPLE = f"{PUBLIC_ADDRESS}=0.0.0.0:8080 with {SERVER_ADDRESS}=http://127.0.0.1:8081"


class FrontDoorError(RuntimeError):
    """The public port cannot be opened."""


class FrontDoor:
    """Opens the public address when this worker is ready, and relays from there to the server.

    TorchServe's /ping says Healthy while its workers still load, and for five minutes while they
    cannot. Behind a front door nobody hears that: it opens when the first worker has loaded its
    model, and says that it is not ready while there is none, see `handler.lifecycle.relay_process`.

    Attributes:
        departures: which clients have hung up.
        process: the relay that this worker has started.
    """

    def __init__(
        self,
        public: str,
        upstream: str,
        state: Path,
        limits: Limits = NO_BOUNDS_GIVEN,
        certificate: Sequence[str] = (),
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Says that this worker is ready and opens the port, where none has yet.

        Args:
            public: `host:port` to listen on.
            upstream: `host:port` of TorchServe.
            state: a path that the workers of one TorchServe share, to whose name they add endings.
            limits: what clients may take.
            certificate: PEM files of the certificate with its chain and of its key, for TLS.
            on_lost: called when the relay has ended, by itself or another's hand, and the port
                cannot be opened again.

        Raises:
            FrontDoorError: the port cannot be opened.
        """
        try:
            self._presence = FileLock(relay_process.presence_file(state))
            self._port = FileLock(relay_process.port_file(state))
            self.departures = Departures(relay_process.departures_file(state))
        except OSError as error:
            raise FrontDoorError(f"the front door cannot keep its state: {error}") from error
        bounds = json.dumps(asdict(limits))
        self._arguments = [public, upstream, str(state), bounds, *certificate]
        self._starting = Lock()
        self._closed = False
        self._on_lost = on_lost
        self._presence.share()
        try:
            self.process = self._start()
        except FrontDoorError:
            self._presence.release()
            raise
        Thread(target=self._keep_open, name="front door", daemon=True).start()

    def close(self) -> None:
        """Lets no new connections in; requests that are here are answered."""
        with self._starting:
            self._closed = True
        _close(self.process.stdin)
        self._presence.release()
        # The relay that has the port may have been started by another worker.
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(self._port.read()), signal.SIGTERM)

    def _start(self) -> "subprocess.Popen[bytes]":
        # It may outlive this process, so it must hold no pipe that TorchServe reads to its end.
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(PACKAGE.parent), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout
        said = process.stdout.readline()
        if said != relay_process.READY:
            reason = (said + process.communicate()[0]).decode(errors="replace").strip()
            raise FrontDoorError(
                f"{PUBLIC_ADDRESS} {self._arguments[0]} cannot be opened: {reason}"
            )
        process.stdout.close()
        return process

    def _keep_open(self) -> None:
        """Starts the relay again whenever it ends, until the door is closed."""
        while not self._closed:
            self.process.wait()
            _close(self.process.stdin)
            if not self._reopen():
                logger.critical("the front door cannot be opened again, so the server ends")
                self._on_lost()
                return

    def _reopen(self) -> bool:
        """Whether it is open or closed as it should be; False where it cannot be opened."""
        deadline = time.monotonic() + REOPENING_S
        while time.monotonic() < deadline:
            with self._starting:
                if self._closed:
                    return True
                try:
                    self.process = self._start()
                except FrontDoorError as error:
                    logger.error("%s", error)
                else:
                    logger.warning("the front door's process had ended; there is another one")
                    return True
            time.sleep(REOPENING_PAUSE_S)
        return False


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe
    pipe.close()


def open_front_door(environment: Mapping[str, str], limits: Limits) -> FrontDoor | None:
    """Opens the door that the environment asks for; None if it asks for none.

    Raises:
        FrontDoorError: the variables do not fit together, or the port cannot be opened.
    """
    public = environment.get(PUBLIC_ADDRESS)
    if not public:
        return None
    upstream = urlsplit(environment.get(SERVER_ADDRESS, ""))
    if not upstream.hostname or not upstream.port:
        raise FrontDoorError(f"{PUBLIC_ADDRESS} needs {SERVER_ADDRESS} too, e.g. {EXAMPLE}")
    # TorchServe is the parent of its workers.
    server = os.getppid()
    state = Path(tempfile.gettempdir(), f"d2serve-{server}")
    certificate = [environment[name] for name in (CERTIFICATE, KEY) if name in environment]
    address = f"{upstream.hostname}:{upstream.port}"
    return FrontDoor(public, address, state, limits, certificate, lambda: end_server(server))


def end_server(server: int) -> None:
    """Tells TorchServe to stop: nobody can reach it, and whoever started it shall hear of it."""
    if os.getppid() == server:  # else it has gone, and its number may be another's
        os.kill(server, signal.SIGTERM)
