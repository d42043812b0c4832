"""What every detector offers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

from torch import Tensor

from handler.detections import Detections
from handler.pictures import Picture

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
        image: UInt8[3, H, W], resized, in the network's order of channels.
        size_hw: the picture's own height and width, in whose pixels the answer is.
    """

    image: Tensor
    size_hw: Size


class Detector(Protocol):
    """Whatever finds instances in pictures, many at a time."""

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
