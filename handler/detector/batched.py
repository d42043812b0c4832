"""What detectors have in common, whatever their network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from handler.detections import Detections
from handler.detector.interface import Outcome, Prepared, Size
from handler.detector.running import BatchRunner
from handler.pictures import Picture
from handler.settings import Settings
from handler.telemetry.forwards import ForwardLog

# Of the picture that warms up a network which takes pictures as large as they are.
WARM_UP_SIDE = 256


class BatchedDetector(ABC):
    """Pictures in, detections out, many at a time.

    Args:
        padded_size: see `BatchRunner`.
        settings: which pictures run together.
    """

    def __init__(self, padded_size: Callable[[Size], Size], settings: Settings) -> None:
        self.runner = BatchRunner(self._network, padded_size, settings)

    @property
    def forwards(self) -> ForwardLog:
        """What went through the network together since it was last asked."""
        return self.runner.forwards

    def warm_up(self) -> None:
        """Runs one grey picture, so that the first client does not wait for one-time set-up.

        Raises:
            Exception: whatever is raised where the network cannot run.
        """
        side = self._min_size() or WARM_UP_SIDE
        prepared = self.prepare(np.full((side, side, 3), 127, dtype=np.uint8))
        self._network([prepared.image], [prepared.size_hw])

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome, micro-batch by micro-batch."""
        return self.runner.run(pictures)

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Detects in UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        return self.runner.run_in_order(map(self.prepare, pictures))

    @abstractmethod
    def prepare(self, picture: Picture) -> Prepared:
        """UInt8[H, W, 3] RGB as the network wants it."""

    @abstractmethod
    def _min_size(self) -> int:
        """What a picture's shorter side is resized to; 0 where it is not."""

    @abstractmethod
    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        """What is found in prepared pictures of these heights and widths, in order."""
