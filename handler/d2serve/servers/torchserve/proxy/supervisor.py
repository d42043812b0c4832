"""Start the proxy process and keep it running."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import IO

from d2serve.servers.torchserve.proxy.process import READY

logger = logging.getLogger(__name__)
PACKAGE = Path(__file__).resolve().parents[3]
# Isolated from whatever lies in the working folder and on PYTHONPATH.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from d2serve.servers.torchserve.proxy.process import run; run()"
)
# Chunks of bodies as large as this go back to the system when they have gone on. By itself glibc
# soon keeps such ones for later, in a heap that grows for as long as sizes differ.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
# A relay that has ended is replaced within moments, unless somebody else has taken its port.
REOPENING_S = 30.0
REOPENING_PAUSE_S = 0.5


class RelayError(RuntimeError):
    """The relay could not start; its own words."""


class KeptRelay:
    """A process that relays, or stands by until another one's port is free.

    Args:
        arguments: of `d2serve.servers.torchserve.proxy.process.main`.
        on_lost: called when it has ended, by itself or another's hand, and cannot start again.

    Attributes:
        process: the one that runs now.

    Raises:
        RelayError: it cannot start.
    """

    def __init__(self, arguments: Sequence[str], on_lost: Callable[[], None]) -> None:
        self._arguments = arguments
        self._on_lost = on_lost
        self._starting = Lock()
        self._let_go = False
        self.process = self._start()
        Thread(target=self._keep, name="front door", daemon=True).start()

    def let_go(self) -> None:
        """Replaces it no more, and ends it if it stands by."""
        with self._starting:
            self._let_go = True
        _close(self.process.stdin)

    def _start(self) -> "subprocess.Popen[bytes]":
        # It may outlive this process, so it must hold no pipe that TorchServe reads to its end.
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(PACKAGE.parent), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=MEMORY | os.environ,
        )
        assert process.stdout
        said = process.stdout.readline()
        if said != READY:
            raise RelayError((said + process.communicate()[0]).decode(errors="replace").strip())
        process.stdout.close()
        return process

    def _keep(self) -> None:
        while not self._let_go:
            self.process.wait()
            _close(self.process.stdin)
            if not self._replace():
                logger.critical("the front door cannot be opened again, so the server ends")
                self._on_lost()
                return

    def _replace(self) -> bool:
        """Whether another one runs, or none is to; False where none can."""
        deadline = time.monotonic() + REOPENING_S
        while time.monotonic() < deadline:
            with self._starting:
                if self._let_go:
                    return True
                try:
                    self.process = self._start()
                except RelayError as error:
                    logger.error("the front door cannot be opened again yet: %s", error)
                else:
                    logger.warning("the front door's process had ended; there is another one")
                    return True
            time.sleep(REOPENING_PAUSE_S)
        return False


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe
    pipe.close()
