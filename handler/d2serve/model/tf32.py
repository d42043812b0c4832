"""Full float32 arithmetic on CUDA devices, without TF32."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 convolutions and matrix products without TF32 within the block.

    By default cuDNN rounds the inputs of float32 convolutions to TF32, a mantissa of 10 bits, which
    moves boxes by up to 0.13 px. PyTorch's flags belong to the process: when blocks overlap in
    several threads, the first one sets the flags and the last one restores them.
    """
    _BLOCKS.enter()
    try:
        yield
    finally:
        _BLOCKS.leave()


class _Blocks:
    """The running blocks of all threads, and the flags to restore after the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._flags = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._count == 0:
                with ExitStack() as flags:
                    flags.enter_context(_full_convolutions())
                    flags.enter_context(_full_products())
                    self._flags = flags.pop_all()
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._flags.close()


# One for the process, like the flags; guarded by its own lock.
_BLOCKS = _Blocks()


# PyTorch 2.9 and later have `fp32_precision` beside the older flags, whose getters raise a
# RuntimeError if a program mixes both. The older flags come first, so that they can still be read.
@contextmanager
def _full_convolutions() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:
        allowed = False
    if allowed:
        cudnn.allow_tf32 = False
    try:
        with _ieee(getattr(cudnn, "conv", None)):
            yield
    finally:
        if allowed:
            cudnn.allow_tf32 = True


@contextmanager
def _full_products() -> Iterator[None]:
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:
        precision = "highest"
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with _ieee(torch.backends.cuda.matmul):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


@contextmanager
def _ieee(operation: Any) -> Iterator[None]:
    """Set `fp32_precision` of an operation that still uses TF32."""
    if getattr(operation, "fp32_precision", None) != "tf32":
        yield
        return
    operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        operation.fp32_precision = "tf32"
