"""Runs pictures through a network so that none of them changes another's answer."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.batching import group
from handler.detector.interface import Failure, Outcome
from handler.settings import Settings
from handler.telemetry import Stopwatch
from handler.telemetry.forwards import Forward, ForwardLog

logger = logging.getLogger(__name__)

Size: TypeAlias = tuple[int, int]
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

    def run(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Outcome]:
        """Outcomes in the order of the pictures; a forward that fails is halved down to the
        picture at fault."""
        outcomes: dict[int, Outcome] = {}
        for indices in group(self._batch_keys(images), self.settings.images_per_forward):
            together = self._forward([images[i] for i in indices], [sizes_hw[i] for i in indices])
            outcomes.update(zip(indices, together, strict=True))
        return [outcomes[index] for index in range(len(images))]

    def _batch_keys(self, images: Sequence[Tensor]) -> list[Size]:
        if self.settings.padding == "batch":
            return [(0, 0)] * len(images)
        return [self.padded_size((image.shape[1], image.shape[2])) for image in images]

    def _forward(self, images: list[Tensor], sizes_hw: list[Size]) -> list[Outcome]:
        watch = Stopwatch()
        try:
            found = self.network(images, sizes_hw)
        except Exception as error:  # whatever it is, the picture at fault's neighbours get answers
            logger.exception("the forward of %d pictures failed", len(images))
            elapsed_ms, failure = watch.elapsed_ms(), _failure(error)
            short = failure is Failure.OUT_OF_MEMORY
            self.forwards.add(Forward(len(images), elapsed_ms, failed=True, out_of_memory=short))
            if len(images) == 1:
                return [Outcome(failure, elapsed_ms, batch=1)]
            half = len(images) // 2
            return [
                *self._forward(images[:half], sizes_hw[:half]),
                *self._forward(images[half:], sizes_hw[half:]),
            ]
        elapsed_ms = watch.elapsed_ms()
        self.forwards.add(Forward(len(images), elapsed_ms))
        return [Outcome(detections, elapsed_ms, len(images)) for detections in found]


def _failure(error: Exception) -> Failure:
    """On the CPU torch has no exception of its own for too little memory."""
    short = isinstance(error, torch.OutOfMemoryError | MemoryError)
    short = short or "DefaultCPUAllocator" in str(error)
    return Failure.OUT_OF_MEMORY if short else Failure.FAULT
