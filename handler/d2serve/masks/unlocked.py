"""Functions of tensors that run without Python's interpreter lock."""

import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
# torch's own OpenMP library, which this library depends on.
_openmp = ctypes.CDLL(torch._C.__file__)
# Two threads must not compile at the same time.
_compiling = Lock()


def unlocked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function of tensors in TorchScript, which compiles it at the first call.

    It computes with one torch thread. TorchScript releases the interpreter lock for the whole call,
    so that threads run such functions at the same time, each on a core of its own. Where
    TorchScript cannot compile it, the function runs as it is, with equal results.
    """
    compiled: list[Callable[Parameters, Result]] = []

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not compiled:
            with _compiling:
                if not compiled:
                    compiled.append(_compile(function))
        with _one_thread():
            return compiled[0](*args, **kwargs)

    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one torch thread: to wait for others costs more than they save on short work.

    Unlike `torch.set_num_threads`, which other threads inherit, this sets the calling thread's
    number alone. A torch without OpenMP keeps its threads.
    """
    own = torch.get_num_threads()  # in a new thread, torch sets the number at the first call
    if own == 1 or not hasattr(_openmp, "omp_set_num_threads"):
        yield
        return
    _openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        _openmp.omp_set_num_threads(own)


def _compile(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    # Recent versions of torch keep TorchScript, but advise against it for models. Their warning
    # stays, because a thread that changes the filters of warnings changes them for all threads.
    try:
        return torch.jit.script(function)
    except (RuntimeError, AttributeError, OSError):  # not supported, removed, or without source
        logger.warning("TorchScript cannot compile %s: threads wait", function, exc_info=True)
        return function
