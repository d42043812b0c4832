"""What every detector offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from handler.detections import Detections
from handler.pictures import Picture


@dataclass(frozen=True)
class Outcome:
    """What the detector made of one picture.

    `detections` is None where its forward failed; `batch` pictures took `forward_ms` together.
    """

    detections: Detections | None
    forward_ms: float
    batch: int


class Detector(Protocol):
    """Whatever finds instances in pictures, many at a time."""

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Takes UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        ...
