"""Process set-up: huge pages, CPU threads, executors."""

import os
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch

# torch reads it at its first allocation: ask Linux for 2 MB pages for what is larger than those.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def take_huge_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets torch take pages of 2 MB in this process, unless the environment decides otherwise.

    Feature maps are large and new in each forward. In pages of 4 kB, Linux hands over a hundred
    thousand of them for one picture.
    """
    environment.setdefault(HUGE_PAGES, "1")


# Whoever sets it has decided already, and torch follows it.
OPENMP_THREADS = "OMP_NUM_THREADS"


def take_threads(threads: int, workers: int, environment: Mapping[str, str] = os.environ) -> None:
    """Sets torch's threads in this process.

    Each worker's torch would take all cores, and threads that wait for each other keep them busy.

    Args:
        threads: how many; 0 takes this worker's share, so that workers x threads <= cores.
        workers: processes that share the machine, at least 1.
        environment: where OMP_NUM_THREADS would be.
    """
    if threads:
        torch.set_num_threads(threads)
    elif OPENMP_THREADS not in environment:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def decode_threads(threads: int, workers: int) -> int:
    """How many threads decode and encode requests beside the network, at least 1.

    Args:
        threads: how many; 0 is this worker's share of the cores.
        workers: processes that share the machine, at least 1.
    """
    return threads or max(1, (os.cpu_count() or 1) // workers)


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
