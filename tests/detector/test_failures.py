"""What a failed forward's exception says about the device."""

import pytest
import torch

from d2serve.detector.base import DeviceLostError, Failure, failure_of


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
        (RuntimeError("shape mismatch"), Failure.FAULT),
        (ValueError("CUDA error: said by no driver"), Failure.FAULT),
    ],
)
def test_failures(error: Exception, failure: Failure) -> None:
    assert failure_of(error) is failure


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "CUDA error: unspecified launch failure",
    ],
)
def test_an_error_that_stays_loses_the_device(said: str) -> None:
    with pytest.raises(DeviceLostError, match="CUDA error"):
        failure_of(RuntimeError(said))


def test_nothing_that_guards_a_request_catches_it() -> None:
    assert not issubclass(DeviceLostError, Exception)
