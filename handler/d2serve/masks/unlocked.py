"""Functions of tensors that run without Python's interpreter lock."""

import logging
import warnings
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
# Two threads must not compile at the same time.
_compiling = Lock()


def unlocked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function of tensors in TorchScript, which compiles it at the first call.

    TorchScript releases the interpreter lock for the whole call, so that threads run such functions
    at the same time, each on a core of its own. Where TorchScript cannot compile it, the function
    runs as it is, with equal results.
    """
    compiled: list[Callable[Parameters, Result]] = []

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not compiled:
            with _compiling:
                if not compiled:
                    compiled.append(_compile(function))
        return compiled[0](*args, **kwargs)

    return run


def _compile(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    try:
        with warnings.catch_warnings():
            # Recent versions of torch keep TorchScript, but advise against it for models.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.script(function)
    except (RuntimeError, AttributeError):
        logger.warning("TorchScript cannot compile %s: threads wait", function, exc_info=True)
        return function
