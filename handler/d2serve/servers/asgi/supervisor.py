"""Start the server process, and restart it when it ends unexpectedly.

The supervisor holds the listening socket, so that clients that connect during a restart wait
instead of being refused. It imports neither torch nor the server's packages.
"""

import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from d2serve.errors import ServerError
from d2serve.servers.asgi.config import TOKEN_VARIABLE, ServerConfig
from d2serve.servers.asgi.control import Control
from d2serve.servers.asgi.listener import open_listener
from d2serve.servers.asgi.model_folders import unpack_models
from d2serve.servers.openmp import openmp_settings

logger = logging.getLogger(__name__)
# Time before a restart, in seconds: doubled after each, until the server has been stable.
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_S = 60.0
# A blocked main thread handles a signal only after it wakes up.
POLL_S = 0.1
# The working folder must not shadow installed packages.
PROGRAM = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "from d2serve.servers.asgi.process import main; main()"
)


@contextmanager
def running_server(
    models: Sequence[Path],
    config: ServerConfig,
    *,
    name: str = "",
    token: str = "",
    log: IO[bytes] | None = None,
) -> Iterator["Supervisor"]:
    """Serve models while the `with` block runs.

    HTTP works from the start of the block; `wait_until_ready` returns when predictions do.

    Args:
        models: archives (.mar), packages (.tar.gz), folders with their content, or folders that
            contain one of these.
        config: the configuration, without the folders; port 0 chooses a free port.
        name: name of the only model; empty to name models after their archives.
        token: the token that clients need; empty for none.
        log: file for the log of the server process; by default this process's stderr.

    Raises:
        ArchiveError: an archive cannot be unpacked.
        CommandError: the address or port cannot be used, or two models have one name.
    """
    with (
        TemporaryDirectory(prefix="d2serve-", ignore_cleanup_errors=True) as home,
        open_listener(config.address, config.port) as listener,
    ):
        port = listener.getsockname()[1]
        folders = unpack_models(models, Path(home), name)
        config = replace(config, folders=folders, port=port)
        supervisor = Supervisor(config, listener, Path(home), token=token, log=log)
        supervisor.start()
        try:
            yield supervisor
        finally:
            supervisor.kill()


class Supervisor:
    """Runs one server process at a time, until it is stopped.

    Attributes:
        config: the configuration of the server.
        home: a folder that exists while the server runs.
        process: the current server process.
        restarts: number of times that it has been restarted.
    """

    def __init__(
        self,
        config: ServerConfig,
        listener: socket.socket,
        home: Path,
        *,
        token: str = "",
        log: IO[bytes] | None = None,
    ) -> None:
        self.config = config
        self.home = home
        self.process: subprocess.Popen[bytes]
        self.restarts = 0
        self._listener, self._token, self._log = listener, token, log
        self._ready, self._stopping, self._ended = (threading.Event() for _ in range(3))
        self._failure = ""
        self._backoff_s = FIRST_BACKOFF_S
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._monitor, name="supervisor", daemon=True)

    @property
    def url(self) -> str:
        """Base URL of the server, from this machine."""
        return self.config.url

    @property
    def model_name(self) -> str:
        """Name of the first model."""
        return next(iter(self.config.folders))

    def start(self) -> None:
        """Start the server process."""
        self._control = self._spawn()
        self._thread.start()

    def wait_until_ready(self, timeout_s: float = 600) -> None:
        """Return when the server has loaded its models.

        Raises:
            ServerError: it cannot load them, or the timeout expired.
        """
        for _ in range(max(1, round(timeout_s / POLL_S))):
            if self._ready.is_set():
                return
            if self._ended.is_set():
                raise self._error()
            time.sleep(POLL_S)
        raise ServerError(f"the server was not ready within {timeout_s:g} s")

    def wait_for_exit(self) -> None:
        """Return when the server has been stopped.

        Raises:
            ServerError: it has ended for another reason.
        """
        # Neither Thread.join nor Event.wait: a signal handler that raises an exception could leave
        # their locks held, and `_monitor` would wait for ever.
        while not self._ended.is_set():
            time.sleep(POLL_S)
        if self._failure:
            raise self._error()

    def stop(self) -> None:
        """Let the server finish the requests in progress, and return when it has ended."""
        with self._lock:
            self._stopping.set()
            self._listener.close()
            self.process.terminate()
        self.wait_for_exit()

    def kill(self) -> None:
        """End the server at once."""
        with self._lock:
            self._stopping.set()
            self._listener.close()
            self.process.kill()
        self._ended.wait()

    def _error(self) -> ServerError:
        return ServerError(self._failure or "the server has been stopped")

    def _spawn(self) -> Control:
        parent, child = socket.socketpair()
        descriptors = self._listener.fileno(), child.fileno()
        with child, ExitStack() as on_error:
            on_error.callback(parent.close)
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, self.config.to_json(), *map(str, descriptors)],
                env={
                    **openmp_settings(os.environ),
                    **os.environ,
                    TOKEN_VARIABLE: self._token,
                },
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stderr=self._log,
                # Ctrl-C in a terminal reaches the supervisor only.
                start_new_session=True,
            )
            on_error.pop_all()
        return Control(parent)

    def _monitor(self) -> None:
        """Wait for the process in a thread, and restart it."""
        try:
            self._restart_until_stopped()
        except Exception as error:
            logger.exception("the supervisor has failed")
            self._failure = f"the supervisor has failed: {error}; the log above has the details"
        finally:
            self._ended.set()

    def _restart_until_stopped(self) -> None:
        while True:
            failure = self._follow()
            code = self.process.wait()
            if self._stopping.is_set():
                return
            if not self._ready.is_set():
                self._failure = failure or f"the server process ended with exit code {code}"
                return
            reason = f": {failure}" if failure else ""
            logger.error(
                "the server process ended with exit code %s%s; restarting in %g s",
                *(code, reason, self._backoff_s),
            )
            while not self._restart():
                if self._stopping.is_set():
                    return

    def _restart(self) -> bool:
        """Wait, and start a process; return False if it cannot be started or shall not be."""
        self._stopping.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)
        with self._lock:
            if self._stopping.is_set():
                return False
            try:
                self._control = self._spawn()
            except OSError as error:  # such as too little memory, or too many open files
                logger.error(
                    "the server process cannot be started: %s; trying again in %g s",
                    *(error, self._backoff_s),
                )
                return False
            self.restarts += 1
            return True

    def _follow(self) -> str:
        """Process the messages of the server process until it ends; return its failure."""
        failure = ""
        ready_at = math.inf
        for message in self._control.messages():
            failure = message.get("failed", "")
            if message.get("ready"):
                self._ready.set()
                ready_at = time.monotonic()
        self._control.close()
        if time.monotonic() - ready_at > STABLE_S:
            self._backoff_s = FIRST_BACKOFF_S
        return failure
