"""Threads with a number of torch threads of their own."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread

import torch

# Far longer than necessary, also on a machine that swaps.
START_TIMEOUT_S = 30.0


def start_thread(name: str, torch_threads: int, run: Callable[[], None]) -> Thread:
    """Start a daemon thread, and return when its number of torch threads is set.

    torch's number of threads is process-wide until a thread has its own, so threads must start one
    after the other. The caller's number is unchanged.

    Args:
        name: the thread's name.
        torch_threads: the number of threads with which torch computes in it.
        run: called in the thread.

    Raises:
        RuntimeError: the thread cannot start, or does not within START_TIMEOUT_S.
    """
    started: Future[None] = Future()
    own = torch.get_num_threads()
    thread = Thread(target=_run, args=(started, torch_threads, run), name=name, daemon=True)
    thread.start()
    try:
        started.result(START_TIMEOUT_S)
    except (TimeoutError, FutureTimeoutError):
        raise RuntimeError(f"thread {name} did not start within {START_TIMEOUT_S:g} s") from None
    except Exception as error:
        raise RuntimeError(f"thread {name} could not start: {error}") from error
    torch.set_num_threads(own)  # future threads of this process inherit it
    return thread


def _run(started: "Future[None]", torch_threads: int, run: Callable[[], None]) -> None:
    try:
        torch.set_num_threads(torch_threads)
        torch.get_num_threads()  # until the first call a thread follows changes of other threads
    except Exception as error:  # noqa: BLE001 (raised by `start_thread`)
        started.set_exception(error)
        return
    started.set_result(None)
    run()
