"""Threads that run the stages of requests beside the network, in order of priority."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Condition, Lock, current_thread
from typing import TypeAlias

from d2serve.serving.threads import start_thread

Task: TypeAlias = Callable[[], None]
# Turn, number in order of arrival, and task.
Entry: TypeAlias = tuple[int, int, Task]
# The turn of tasks that encode.
FIRST = -1


class StagePool:
    """Threads for parsing, decoding and encoding, by tasks that raise no errors.

    In its threads torch computes single-threaded, because they run in parallel already; the
    caller's number of threads is unchanged.

    Args:
        threads: number of threads, at least 1.
        may_decode: returns whether decoded images are needed; tasks that decode wait while it
            returns False.
        on_prepared: called when no task is left that prepares images.

    Attributes:
        preparing: number of tasks that prepare images, all except those that encode, and of
            `more_follow` blocks.

    Raises:
        RuntimeError: a thread does not start.
    """

    def __init__(
        self,
        threads: int,
        may_decode: Callable[[], bool] = lambda: True,
        on_prepared: Callable[[], None] = lambda: None,
    ) -> None:
        self.preparing = 0
        self._may_decode = may_decode
        self._on_prepared = on_prepared
        self._numbers = count()
        self._tasks: list[Entry] = []
        self._decoding: list[Entry] = []
        lock = Lock()
        self._changed = Condition(lock)
        self._all_prepared = Condition(lock)
        self._closed = False
        self._threads = [start_thread(f"stage-{number}", 1, self._run) for number in range(threads)]

    def parse(self, task: Task, turn: int) -> None:
        """Run a task in its turn."""
        self._add(self._tasks, task, turn)

    def decode(self, task: Task, turn: int) -> None:
        """Run a task in its turn, once decoded images are needed."""
        self._add(self._decoding, task, turn)

    def encode(self, task: Task) -> None:
        """Run a task before all others: its request needs nothing else, and memory is freed."""
        self._add(self._tasks, task, FIRST)

    @contextmanager
    def more_follow(self) -> Iterator[None]:
        """Announce tasks that prepare images; they are added in the `with` block."""
        with self._changed:
            self.preparing += 1
        try:
            yield
        finally:
            self._count_prepared()

    def wait_until_prepared(self) -> None:
        """Return when no task is left that prepares images."""
        with self._all_prepared:
            self._all_prepared.wait_for(lambda: self.preparing == 0)

    def wake(self) -> None:
        """Check again whether decoded images are needed."""
        with self._changed:
            if self._decoding:
                self._changed.notify_all()

    def close(self) -> None:
        """Finish the submitted tasks and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _add(self, tasks: list[Entry], task: Task, turn: int) -> None:
        with self._changed:
            heapq.heappush(tasks, (turn, next(self._numbers), task))
            self.preparing += turn != FIRST
            # A thread of the pool that has added the only task takes it itself: it adds tasks at
            # the end of its own.
            if len(self._tasks) + len(self._decoding) > 1 or current_thread() not in self._threads:
                self._changed.notify()

    def _run(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run the next task, and free it; False after the end."""
        entry = self._next()
        if entry is None:
            return False
        turn, _, task = entry
        task()
        if turn != FIRST:
            self._count_prepared()
        return True

    def _count_prepared(self) -> None:
        with self._changed:
            self.preparing -= 1
            none_left = self.preparing == 0
            if none_left:
                self._all_prepared.notify_all()
                if self._closed:
                    self._changed.notify_all()
        if none_left:
            self._on_prepared()

    def _next(self) -> Entry | None:
        """Wait for a task; None after the end."""
        with self._changed:
            while True:
                tasks = self._earliest()
                if tasks:
                    return heapq.heappop(tasks)
                if self._closed and not self._decoding:
                    return None
                self._changed.wait()

    def _earliest(self) -> list[Entry]:
        """The list with the next task that may run; empty without one."""
        ready = [self._tasks] if self._tasks else []
        if self._decoding and self._may_decode():
            ready.append(self._decoding)
        return min(ready, key=lambda tasks: tasks[0][:2], default=[])
