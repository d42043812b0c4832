"""Runs pictures through a network so that none of them changes another's answer."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.batching import group
from handler.detector.interface import Failure, Outcome, Prepared, Size
from handler.settings import Settings
from handler.telemetry import Stopwatch

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
    """

    def __init__(
        self, network: Network, padded_size: Callable[[Size], Size], settings: Settings
    ) -> None:
        self.network = network
        self.padded_size = padded_size
        self.settings = settings

    def run(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome, as soon as it is known; a forward that fails is
        halved down to the picture at fault."""
        for together in group(pictures, self._batch_key, self.settings.images_per_forward):
            positions = [position for position, _ in together]
            yield from zip(
                positions, self._forward([picture for _, picture in together]), strict=True
            )

    def _batch_key(self, picture: Prepared) -> Hashable:
        height, width = self.padded_size((picture.image.shape[1], picture.image.shape[2]))
        if self.settings.padding == "batch":
            # Wide and tall ones would pad each other to a square.
            return (height > width) - (height < width)
        return height, width

    def _forward(self, pictures: Sequence[Prepared]) -> list[Outcome]:
        watch = Stopwatch()
        try:
            found = self.network(
                [picture.image for picture in pictures], [picture.size_hw for picture in pictures]
            )
        except Exception as error:  # whatever it is, the picture at fault's neighbours get answers
            logger.exception("the forward of %d pictures failed", len(pictures))
            if len(pictures) == 1:
                return [Outcome(_failure(error), watch.elapsed_ms(), batch=1)]
            half = len(pictures) // 2
            return [*self._forward(pictures[:half]), *self._forward(pictures[half:])]
        elapsed_ms = watch.elapsed_ms()
        return [Outcome(detections, elapsed_ms, len(pictures)) for detections in found]


def _failure(error: Exception) -> Failure:
    """On the CPU torch has no exception of its own for too little memory."""
    short = isinstance(error, torch.OutOfMemoryError | MemoryError)
    short = short or "DefaultCPUAllocator" in str(error)
    return Failure.OUT_OF_MEMORY if short else Failure.FAULT
