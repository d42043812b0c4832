"""Run a command, and report its expected errors without a traceback."""

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from d2serve.errors import D2ServeError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
FAILED = 1
INTERRUPTED = 130


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the command's exit code, or with 1 and one line on stderr for an expected error.

    Expected are D2ServeErrors, and OSErrors that name a file, such as an output that is a folder.

    SIGTERM and SIGHUP unwind the command as Ctrl-C does, so that servers end with it.
    """
    for stop in STOP_SIGNALS:
        signal.signal(stop, _unwind)
    try:
        sys.exit(main())
    except D2ServeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"error: {error.filename}: {error.strerror}", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _unwind(*_: Any) -> NoReturn:
    """Raise KeyboardInterrupt for the first signal and ignore later ones.

    When a terminal stops make and its child together, make forwards a second signal to the child;
    it must not cut the end of the servers short.
    """
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt
