"""Run a command and report its errors without a traceback."""

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from d2serve.errors import CommandError

STOPS = (signal.SIGTERM, signal.SIGHUP)


def run(main: Callable[[], int]) -> NoReturn:
    """End the process as the command says: its exit code, or 1 and the message of its failure.

    SIGTERM and SIGHUP unwind the command as Ctrl-C does, so that no server is left behind.
    """
    for stop in STOPS:
        signal.signal(stop, _unwind)
    try:
        sys.exit(main())
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _unwind(*_: Any) -> NoReturn:
    """Once: where make and its child are both told to stop, make tells the child again, and that
    must not cut short what ends the servers."""
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt
