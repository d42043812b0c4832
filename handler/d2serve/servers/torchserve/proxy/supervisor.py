"""Start the proxy process and restart it when it exits."""

import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread

from d2serve.errors import ProxyError
from d2serve.servers.torchserve.proxy.shared_files import FileLock

logger = logging.getLogger(__name__)
READY = b"ready\n"
ARCHIVE = Path(__file__).resolve().parents[4]
# With -I, neither the working folder nor PYTHONPATH decides which modules run. The archive also
# contains h11.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from d2serve.servers.torchserve.proxy.process import run; run()"
)
# Returns buffers of bodies to the system once they are freed. By default glibc soon keeps buffers
# of this size in a heap that grows as long as their sizes differ.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
# A start takes a fraction of a second, on a machine without load.
START_TIMEOUT_S = 30.0
# A restart succeeds within moments, unless another program has taken the port.
RESTART_TIMEOUT_S = 30.0
POLL_S = 0.2


class ProxySupervisor:
    """Keeps one proxy process running, together with the supervisors of other workers.

    Args:
        arguments: arguments of `d2serve.servers.torchserve.proxy.process.main`.
        port: the lock that the listening proxy holds.
        on_lost: called when the process has exited and cannot be restarted.

    Attributes:
        process: the last process that this worker has started; None if other workers did.

    Raises:
        ProxyError: the process cannot start; the message is its output.
    """

    def __init__(
        self, arguments: Sequence[str], port: FileLock, on_lost: Callable[[], None]
    ) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments
        self._port = port
        self._on_lost = on_lost
        self._starting = Lock()
        self._released = False
        self._start_if_absent()
        Thread(target=self._supervise, name="proxy supervisor", daemon=True).start()

    def release(self) -> None:
        """Stop restarting the process."""
        with self._starting:
            self._released = True

    def _start_if_absent(self) -> bool:
        """Start a process unless one listens or this is released; True if it was started."""
        with self._starting:
            if self._released or self._port.is_held_elsewhere():
                return False
            self.process = start(self._arguments)
            return True

    def _supervise(self) -> None:
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while not self._released and time.monotonic() < deadline:
            time.sleep(POLL_S)
            if self.process:
                self.process.poll()  # removes a process that has exited from the process table
            try:
                if self._start_if_absent():
                    logger.warning("the proxy process exited and was restarted")
            except ProxyError as error:
                logger.error("the proxy could not be restarted, retrying: %s", error)
            else:
                deadline = time.monotonic() + RESTART_TIMEOUT_S
        if not self._released:
            logger.critical("the proxy cannot be restarted; the worker exits")
            self._on_lost()


def start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a process and wait until it listens.

    Raises:
        ProxyError: it exits, with its output as the message, or does not start in time.
    """
    # It may outlive this process, so it must not inherit a pipe that TorchServe reads to the end.
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", START, str(ARCHIVE), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ALLOCATOR | os.environ,
    )
    assert process.stdout
    with process.stdout as output:
        readable, _, _ = select.select([output], [], [], START_TIMEOUT_S)
        if not readable:
            process.kill()
            process.wait()
            raise ProxyError(f"the proxy process did not start within {START_TIMEOUT_S:g} s")
        if (line := output.readline()) != READY:
            text = line + output.read()
            process.wait()
            raise ProxyError(text.decode(errors="replace").strip())
    return process
