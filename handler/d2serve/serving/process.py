"""Set-up of a worker process: huge pages, CPU threads and executors."""

import os
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch

# Read by torch at its first allocation: request huge pages for large allocations.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# Sets torch's threads; d2serve does not override it.
OPENMP_THREADS = "OMP_NUM_THREADS"


def enable_huge_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let torch use pages of 2 MB in this process, unless the environment sets it already.

    Each forward pass allocates large feature maps. With pages of 4 kB, Linux provides a hundred
    thousand of them for one image.
    """
    environment.setdefault(HUGE_PAGES, "1")


def set_num_threads(
    threads: int, workers: int, environment: Mapping[str, str] = os.environ
) -> None:
    """Set torch's number of threads in this process.

    By default torch uses all cores in each worker, and threads that wait for each other keep the
    cores busy.

    Args:
        threads: number of threads; 0 divides torch's own number among the workers.
        workers: number of processes on this machine, at least 1.
        environment: may contain OMP_NUM_THREADS, which wins over 0.
    """
    if threads:
        torch.set_num_threads(threads)
    elif OPENMP_THREADS not in environment:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def decode_threads(threads: int, workers: int) -> int:
    """The number of threads that decode and encode requests while the network runs, at least 1.

    Args:
        threads: number of threads; 0 divides the cores among the workers.
        workers: number of processes on this machine, at least 1.
    """
    return threads or max(1, (os.cpu_count() or 1) // workers)


class Inline(Executor):
    """Runs each call immediately in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call `fn` and return a finished future; errors of `fn` are raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def start_executor(threads: int) -> Executor:
    """Start an executor of this many threads, at least 1; a single one is the caller's.

    In its threads torch computes single-threaded, because they run in parallel already; the
    caller's number of threads is unchanged.
    """
    if threads == 1:
        return Inline()
    own = torch.get_num_threads()
    started = Barrier(threads + 1)

    def initialize() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # until the first call a thread follows changes of other threads
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="stage", initializer=initialize)
    for _ in range(threads):
        pool.submit(int)  # starts a thread, because all started ones wait for the barrier
    started.wait()
    torch.set_num_threads(own)  # future threads of this process inherit it
    return pool
