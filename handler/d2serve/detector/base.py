"""The interface of all detectors, and the classification of their failures."""

import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from d2serve.detections import Detections, RGBImage
from d2serve.errors import DeviceLostError

# Height and width in pixels.
Size: TypeAlias = tuple[int, int]
# More than any batch has; bounds the memory if the log is never read.
MAX_LOGGED = 10_000
# In the messages of CUDA and its libraries for a lack of memory, which leaves the device usable.
OUT_OF_MEMORY_SIGNS = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")


@dataclass(frozen=True)
class PreprocessedImage:
    """An image as it enters the network.

    Attributes:
        image: UInt8[C, H, W] in the network's channel order; resized, unless the network's device
            does that or the network runs it in several sizes.
        size_hw: height and width of the original image, in whose pixels the results are.
    """

    image: Tensor
    size_hw: Size


class Failure(Enum):
    """The reason why an image has no detections."""

    ERROR = auto()
    OUT_OF_MEMORY = auto()
    """The image alone does not fit the device."""


@dataclass(frozen=True)
class InferenceResult:
    """The result of one image.

    Attributes:
        output: the detections, or the failure.
        forward_ms: duration of its forward pass in milliseconds.
        batch: number of images in that forward pass.
        error: the exception that caused a failure.
    """

    output: Detections | Failure
    forward_ms: float
    batch: int
    error: Exception | None = field(default=None, compare=False)


class Detector(Protocol):
    """Finds instances in images, many at a time."""

    @property
    def forward_passes(self) -> "ForwardLog":
        """The forward passes since the log was last read."""
        ...

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        """Preprocess UInt8[H, W, 3] RGB of any size; may be called from any thread.

        Raises:
            RequestError: 422 the network takes four channels, and the image has three.
        """
        ...

    def batch_key(self, image: PreprocessedImage) -> Hashable:
        """Return the key of images that can run together; may be called from any thread."""
        ...

    def padded_pixels(self, image: PreprocessedImage) -> int:
        """Number of pixels of the image in the network, in all of its versions together; may be
        called from any thread."""
        ...

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        """Run images of equal keys; results in the same order.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        ...


class ModelDetector(Detector, Protocol):
    """A detector that runs the model of an archive."""

    @property
    def channels(self) -> int:
        """Number of channels of the network's input: 1, 3 or 4."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of the model's instance classes."""
        ...

    @property
    def num_stuff_classes(self) -> int:
        """Number of the model's pixel classes; 0 without semantic segmentation."""
        ...

    @property
    def score_threshold(self) -> float:
        """The network's own minimum score, 0..1."""
        ...

    @property
    def max_detections(self) -> int:
        """The network's maximum number of detections per image."""
        ...

    def stream(self, images: Iterable[PreprocessedImage]) -> Iterator[tuple[int, InferenceResult]]:
        """Yield each image's position and result as soon as it is known, in any order.

        Consumes no more images than the next results need.
        """
        ...

    def detect(self, images: Sequence[RGBImage]) -> list[InferenceResult]:
        """Run UInt8[H, W, 3] RGB images of any sizes; results in the same order."""
        ...

    def warm_up(self) -> None:
        """Run one gray image, so that the first request does not wait for one-time set-up."""
        ...


@dataclass(frozen=True)
class ForwardPass:
    """One call of the network.

    Attributes:
        images: number of images.
        elapsed_ms: duration in milliseconds.
        failed: whether it raised an error; several images are then run again in smaller batches.
        out_of_memory: whether it failed for lack of memory.
    """

    images: int
    elapsed_ms: float
    failed: bool = False
    out_of_memory: bool = False


class ForwardLog:
    """Thread-safe log of forward passes, in the order in which they ended."""

    def __init__(self) -> None:
        # append and popleft of a deque are atomic.
        self._passes: deque[ForwardPass] = deque(maxlen=MAX_LOGGED)

    def add(self, forward_pass: ForwardPass) -> None:
        """Append a forward pass."""
        self._passes.append(forward_pass)

    def take(self) -> tuple[ForwardPass, ...]:
        """Remove and return the forward passes since the last call."""
        return tuple(self._passes.popleft() for _ in range(len(self._passes)))


class Stopwatch:
    """Measures the time since its creation."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def elapsed_ms(self) -> float:
        """Milliseconds since the creation."""
        return (time.perf_counter() - self._started) * 1000.0


def classify_failure(error: Exception) -> Failure:
    """Classify the error of a forward pass.

    Raises:
        DeviceLostError: the error leaves the process's CUDA context unusable.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failure.OUT_OF_MEMORY
    # On the CPU torch has no exception type for a lack of memory.
    if isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_SIGNS):
        return Failure.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and "CUDA error:" in text:
        raise DeviceLostError(text) from error
    return Failure.ERROR
