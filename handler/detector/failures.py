"""What a forward that fails says about the device."""

import torch

from handler.detector.interface import Failure

# What CUDA and its libraries say when the device's memory is short, which harms nothing else.
SHORT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")


class DeviceLostError(BaseException):
    """The process can use its device no more: every later call would fail like this one.

    No `Exception`, so that nothing that keeps a picture's fault from its neighbours stops it.
    """


def failure_of(error: Exception) -> Failure:
    """Why a forward gave nothing.

    Raises:
        DeviceLostError: the error has poisoned the process's CUDA context.
    """
    said = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failure.OUT_OF_MEMORY
    # On the CPU torch has no exception of its own for too little memory.
    if isinstance(error, RuntimeError) and any(sign in said for sign in SHORT_OF_MEMORY):
        return Failure.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and "CUDA error:" in said:
        raise DeviceLostError(said) from error
    return Failure.FAULT
