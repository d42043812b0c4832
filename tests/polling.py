"""Wait for what other threads and processes do, however slow the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

# Far above what any condition takes; tests never depend on it.
WITHIN_S = 60.0
POLL_S = 0.01
Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value], within_s: float = WITHIN_S, every_s: float = POLL_S
) -> Value:
    """Call a function until it returns something true; return that."""
    due = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < due, "timed out"
        time.sleep(every_s)
    return value
