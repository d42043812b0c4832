"""Runs pictures through a network so that none of them changes another's answer."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.batching import group
from handler.detector.failures import failure_of
from handler.detector.interface import Failure, Outcome, Prepared, Size
from handler.detector.memory import MemoryLimit
from handler.settings import Settings
from handler.telemetry import Stopwatch
from handler.telemetry.forwards import Forward, ForwardLog

logger = logging.getLogger(__name__)

Network: TypeAlias = Callable[[Sequence[Tensor], Sequence[Size]], list[Detections]]


class BatchRunner:
    """One network, many pictures: grouped by their padded sizes, failures narrowed down.

    Args:
        network: takes UInt8[3, H, W] pictures, resized, and the heights and widths in pixels that
            they had before; gives what it found, in order.
        padded_size: height and width that a picture of a height and width has inside the network
            when it runs alone.
        settings: `padding` and `images_per_forward` say which run together.

    Attributes:
        forwards: those that ran, until somebody takes them.
    """

    def __init__(
        self, network: Network, padded_size: Callable[[Size], Size], settings: Settings
    ) -> None:
        self.network = network
        self.padded_size = padded_size
        self.settings = settings
        self.forwards = ForwardLog()
        self.memory = MemoryLimit()

    def run(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome, as soon as it is known; a forward that fails is
        halved down to the picture at fault, and a size that was too much is not tried again soon.

        Raises:
            DeviceLostError: the device cannot be used any more.
        """
        for together in group(pictures, self._batch_key, self.settings.images_per_forward):
            positions = [position for position, _ in together]
            yield from zip(
                positions, self._within_memory([picture for _, picture in together]), strict=True
            )

    def run_in_order(self, pictures: Iterable[Prepared]) -> list[Outcome]:
        """As `run`, the outcomes of all pictures in the pictures' order."""
        outcomes = dict(self.run(pictures))
        return [outcomes[position] for position in range(len(outcomes))]

    def _batch_key(self, picture: Prepared) -> Hashable:
        height, width = self.padded_size((picture.image.shape[1], picture.image.shape[2]))
        if self.settings.padding == "batch":
            # Wide and tall ones would pad each other to a square.
            return (height > width) - (height < width)
        return height, width

    def _within_memory(self, pictures: Sequence[Prepared]) -> Iterator[Outcome]:
        """Outcomes in order, of no more pictures at once than have fitted."""
        begin = 0
        while begin < len(pictures):
            pixels = self._largest(pictures[begin:])
            most = self.memory.pictures(pixels) or len(pictures)
            part = pictures[begin : begin + most]
            outcomes = self._forward(part)
            # A picture that fails alone says nothing of how many others fit.
            if not any(isinstance(outcome.found, Failure) for outcome in outcomes):
                together = max(outcome.batch for outcome in outcomes)
                self.memory.ran(pixels * len(part), together=pixels * together)
            yield from outcomes
            begin += most

    def _forward(self, pictures: Sequence[Prepared]) -> list[Outcome]:
        watch = Stopwatch()
        found = self._attempt(pictures)
        elapsed_ms, count = watch.elapsed_ms(), len(pictures)
        short = found is Failure.OUT_OF_MEMORY
        failed = isinstance(found, Failure)
        self.forwards.add(Forward(count, elapsed_ms, failed=failed, out_of_memory=short))
        if not isinstance(found, Failure):
            return [Outcome(detections, elapsed_ms, count) for detections in found]
        if count == 1:
            return [Outcome(found, elapsed_ms, batch=1)]
        half = count // 2
        return [*self._forward(pictures[:half]), *self._forward(pictures[half:])]

    def _attempt(self, pictures: Sequence[Prepared]) -> list[Detections] | Failure:
        """When it returns, what a forward that failed had on the device is free again."""
        try:
            return self.network(
                [picture.image for picture in pictures], [picture.size_hw for picture in pictures]
            )
        except Exception as error:  # whatever it is, the picture at fault's neighbours get answers
            logger.exception("the forward of %d pictures failed", len(pictures))
            failure = failure_of(error)
        if failure is Failure.OUT_OF_MEMORY:
            torch.cuda.empty_cache()
        return failure

    def _largest(self, pictures: Sequence[Prepared]) -> int:
        """Pixels of the largest picture inside the network."""
        shapes = (picture.image.shape[1:] for picture in pictures)
        sizes = (self.padded_size((height, width)) for height, width in shapes)
        return max(height * width for height, width in sizes)
