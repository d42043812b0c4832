"""Start the proxy process and restart it when it exits."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import IO

from d2serve.errors import ProxyError
from d2serve.servers.torchserve.proxy.process import READY

logger = logging.getLogger(__name__)
PACKAGE = Path(__file__).resolve().parents[3]
# With -I, neither the working folder nor PYTHONPATH decides which modules run.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from d2serve.servers.torchserve.proxy.process import run; run()"
)
# Returns buffers of bodies to the system once they are freed. By default glibc soon keeps buffers
# of this size in a heap that grows as long as their sizes differ.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
# A restart succeeds within moments, unless another program has taken the port.
RESTART_TIMEOUT_S = 30.0
RESTART_PAUSE_S = 0.5


class ProxySupervisor:
    """A proxy process that listens, or stands by until the port is free, and is kept running.

    Args:
        arguments: arguments of `d2serve.servers.torchserve.proxy.process.main`.
        on_lost: called when the process has exited and cannot be restarted.

    Attributes:
        process: the current process.

    Raises:
        ProxyError: the process cannot start; the message is its output.
    """

    def __init__(self, arguments: Sequence[str], on_lost: Callable[[], None]) -> None:
        self._arguments = arguments
        self._on_lost = on_lost
        self._starting = Lock()
        self._released = False
        self.process = self._start()
        Thread(target=self._supervise, name="proxy supervisor", daemon=True).start()

    def release(self) -> None:
        """Stop restarting the process, and end it if it stands by."""
        with self._starting:
            self._released = True
        _close(self.process.stdin)

    def _start(self) -> "subprocess.Popen[bytes]":
        # It may outlive this process, so it must not inherit a pipe that TorchServe reads to the
        # end.
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(PACKAGE.parent), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ALLOCATOR | os.environ,
        )
        assert process.stdout
        output = process.stdout.readline()
        if output != READY:
            output += process.communicate()[0]
            raise ProxyError(output.decode(errors="replace").strip())
        process.stdout.close()
        return process

    def _supervise(self) -> None:
        while not self._released:
            self.process.wait()
            _close(self.process.stdin)
            if not self._restart():
                logger.critical("the proxy cannot be restarted; stopping the server")
                self._on_lost()
                return

    def _restart(self) -> bool:
        """Start a new process unless released; False if that fails for RESTART_TIMEOUT_S."""
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while time.monotonic() < deadline:
            with self._starting:
                if self._released:
                    return True
                try:
                    self.process = self._start()
                except ProxyError as error:
                    logger.error("the proxy could not be restarted, retrying: %s", error)
                else:
                    logger.warning("the proxy process exited and was restarted")
                    return True
            time.sleep(RESTART_PAUSE_S)
        return False


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe
    pipe.close()
