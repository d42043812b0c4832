"""Where the stages of a request run: on threads of their own, or in the caller's."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch


class Inline(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """The future is done when it is returned; what `fn` raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def start_executor(threads: int) -> Executor:
    """An executor of that many threads, at least 1; a single one is the caller's.

    On its threads torch computes without threads of its own, because they are many already; the
    caller's torch keeps its own.
    """
    if threads == 1:
        return Inline()
    own = torch.get_num_threads()
    started = Barrier(threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # torch would follow what others set until it has asked once
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="stage", initializer=begin)
    for _ in range(threads):
        pool.submit(int)  # none is idle before all have begun, so each call starts one
    started.wait()
    torch.set_num_threads(own)  # also for threads to come, for which the others' 1 would count
    return pool
