"""Time that passes when a test wants it to."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.polling import wait_until

Value = TypeVar("Value")


@dataclass
class Clock:
    """A clock that the test sets, for a thread that polls and reads it each time.

    Attributes:
        now: the time in seconds.
        reads: how often it was read.
        is_unused: returns whether the thread reads it no more.
    """

    now: float = 100.0
    reads: int = 0
    is_unused: Callable[[], bool] = lambda: False

    def __call__(self) -> float:
        self.reads += 1
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass; the thread notices all that happened before, and the time."""
        self._wait_for_a_poll()
        self.now += seconds
        self._wait_for_a_poll()

    def _wait_for_a_poll(self) -> None:
        """A poll reads the clock once or twice."""
        before = self.reads
        wait_until(lambda: self.reads >= before + 4 or self.is_unused())


class _Selector(selectors.DefaultSelector):
    """Jumps to the next timer where nothing is ready."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if ready := super().select(0):
            return ready
        if timeout is None:  # no timer: only another thread can continue
            return super().select()
        self.now += max(timeout, 0)
        return []


def run(main: Coroutine[Any, Any, Value]) -> tuple[Value, float]:
    """Run a coroutine that waits for timers only, on a clock that jumps from one to the next;
    return its result and the seconds it took."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main), selector.now
    finally:
        loop.close()
