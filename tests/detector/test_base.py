"""Failures, the log of forward passes, and the stopwatch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from d2serve.detector.base import Failure, ForwardLog, ForwardPass, Stopwatch, classify_failure
from d2serve.errors import DeviceLostError


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), Failure.OUT_OF_MEMORY),
        (MemoryError(), Failure.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Failure.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Failure.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            Failure.OUT_OF_MEMORY,
        ),
        (RuntimeError("shape mismatch"), Failure.ERROR),
        (ValueError("CUDA error: not from a driver"), Failure.ERROR),
    ],
)
def test_failure_of_an_error(error: Exception, failure: Failure) -> None:
    assert classify_failure(error) is failure


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "CUDA error: unspecified launch failure",
    ],
)
def test_permanent_cuda_error_means_a_lost_device(message: str) -> None:
    with pytest.raises(DeviceLostError, match="CUDA error"):
        classify_failure(RuntimeError(message))


def test_lost_device_is_not_caught_as_an_exception() -> None:
    assert not issubclass(DeviceLostError, Exception)


def test_forward_passes_are_returned_once_and_in_order() -> None:
    log = ForwardLog()
    log.add(ForwardPass(2, 1.0))
    log.add(ForwardPass(1, 3.0, failed=True))
    assert log.take() == (ForwardPass(2, 1.0), ForwardPass(1, 3.0, failed=True))
    assert log.take() == ()


def test_log_keeps_forward_passes_of_all_threads() -> None:
    log = ForwardLog()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda images: log.add(ForwardPass(images, 1.0)), range(1000)))
    assert sorted(forward_pass.images for forward_pass in log.take()) == list(range(1000))


def test_stopwatch_increases() -> None:
    watch = Stopwatch()
    readings = [watch.elapsed_ms() for _ in range(100)]
    assert readings[0] >= 0
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]
