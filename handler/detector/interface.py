"""What every detector offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from handler.detections import Detections
from handler.pictures import Picture


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


class Detector(Protocol):
    """Whatever finds instances in pictures, many at a time."""

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Takes UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        ...
