"""The interface of all detectors, and how their failures are classified."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from d2serve.detections import Detections, Picture

# More than any batch takes; bounds memory where nobody asks for them.
MOST_KEPT = 10_000


@dataclass(frozen=True)
class Forward:
    """One call of the network.

    Attributes:
        images: how many pictures went in.
        elapsed_ms: how long it took, in milliseconds.
        failed: it gave nothing; several pictures were then split.
        out_of_memory: it failed for lack of memory.
    """

    images: int
    elapsed_ms: float
    failed: bool = False
    out_of_memory: bool = False


class ForwardLog:
    """Forwards in the order in which they ended, from whichever threads ran them."""

    def __init__(self) -> None:
        # A deque's append and popleft are atomic.
        self._forwards: deque[Forward] = deque(maxlen=MOST_KEPT)

    def add(self, forward: Forward) -> None:
        """Remembers a forward until it is taken."""
        self._forwards.append(forward)

    def take(self) -> tuple[Forward, ...]:
        """The forwards that ended since they were last taken."""
        return tuple(self._forwards.popleft() for _ in range(len(self._forwards)))


Size: TypeAlias = tuple[int, int]


class Failure(Enum):
    """Why a picture's forward gave nothing."""

    FAULT = auto()
    OUT_OF_MEMORY = auto()
    """The picture alone does not fit the device."""


@dataclass(frozen=True)
class Outcome:
    """What the detector made of one picture; `batch` pictures took `forward_ms` together."""

    found: Detections | Failure
    forward_ms: float
    batch: int


@dataclass(frozen=True)
class Prepared:
    """A picture as it enters the network.

    Attributes:
        image: UInt8[3, H, W] in the network's order of channels; resized, unless the network's
            device does that.
        size_hw: the picture's own height and width, in whose pixels the answer is.
    """

    image: Tensor
    size_hw: Size


class Detector(Protocol):
    """Whatever finds instances in pictures, many at a time."""

    @property
    def forwards(self) -> ForwardLog:
        """What went through the network together since it was last asked."""
        ...

    def prepare(self, picture: Picture) -> Prepared:
        """Takes UInt8[H, W, 3] RGB of any size, on any thread."""
        ...

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome as soon as it is known, in any order; takes no more
        pictures than it needs for that."""
        ...


class ModelDetector(Detector, Protocol):
    """A detector with a model of an archive behind it."""

    @property
    def num_classes(self) -> int:
        """How many classes of things the model tells apart."""
        ...

    @property
    def num_stuff_classes(self) -> int:
        """How many classes of stuff the model tells apart; 0 where it does not segment."""
        ...

    @property
    def score_threshold(self) -> float:
        """The least score, 0..1, that the network lets through."""
        ...

    @property
    def max_detections(self) -> int:
        """How many detections of one picture the network gives at most."""
        ...

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Takes UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        ...

    def warm_up(self) -> None:
        """Runs one grey picture, so that the first client does not wait for one-time set-up."""
        ...


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
