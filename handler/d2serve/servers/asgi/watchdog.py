"""End the process when a forward pass hangs or the device is lost: the supervisor restarts it."""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

logger = logging.getLogger(__name__)
# EX_SOFTWARE of sysexits.h.
UNUSABLE = 70
CHECK_INTERVAL_S = 1.0
# Python cannot check anything while a thread keeps the interpreter lock, so faulthandler's own
# thread ends the process then, this much later.
GRACE_S = 10.0


def start_watchdog(
    forward_seconds: Sequence[Callable[[], float]], timeout_s: float
) -> threading.Thread:
    """Start to watch the forward passes of this process.

    Args:
        forward_seconds: one function per model, which returns for how long its current forward
            pass has been running, in seconds.
        timeout_s: the longest permitted time in seconds.
    """

    def watch() -> None:
        while True:
            faulthandler.dump_traceback_later(timeout_s + GRACE_S, exit=True)
            longest = max(seconds() for seconds in forward_seconds)
            if longest > timeout_s:
                exit_unusable(f"a forward pass has not ended after {longest:.0f} s")
            time.sleep(min(CHECK_INTERVAL_S, timeout_s / 4))

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    return thread


def exit_unusable(reason: str) -> NoReturn:
    """End the process at once, with the stack of each thread in the log."""
    logger.critical("%s; the server process exits", reason)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    # Without cleaning up, which may hang as well.
    os._exit(UNUSABLE)
