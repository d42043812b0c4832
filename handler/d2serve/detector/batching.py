"""Run images through a network in batches without changing their results."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections, Picture
from d2serve.detector.base import Failure, Forward, ForwardLog, Outcome, Prepared, Size, failure_of
from d2serve.serving.telemetry import Stopwatch
from d2serve.settings import Settings

Item = TypeVar("Item")


def group(
    items: Iterable[Item], key: Callable[[Item], Hashable], limit: int
) -> Iterator[list[tuple[int, Item]]]:
    """Items of equal keys together, each with its position: full groups at once, then the others.

    Nothing is taken from `items` before it is needed, so that what takes its time to come can do so
    while a full group is worked on.

    Args:
        items: in any number.
        key: what items of one group have in common.
        limit: the largest group, at least 1.
    """
    alike: dict[Hashable, list[tuple[int, Item]]] = {}
    for entry in enumerate(items):
        shared = key(entry[1])
        alike.setdefault(shared, []).append(entry)
        if len(alike[shared]) == limit:
            yield alike.pop(shared)
    yield from alike.values()


# So many forwards near the limit have to fit before a larger one is tried again: what filled the
# memory may be gone, and a try that fails costs one forward.
FITTING_BEFORE_MORE = 100


class MemoryLimit:
    """A bound on the pixels of one forward: none at first, then what has fitted."""

    def __init__(self) -> None:
        self._pixels = math.inf
        self._fitted = 0

    def pictures(self, pixels_each: int) -> int | None:
        """How many pictures of a size may run together, at least 1; None: any number."""
        if math.isinf(self._pixels):
            return None
        return max(1, int(self._pixels // pixels_each))

    def ran(self, pixels: int, *, together: int) -> None:
        """Of so many pixels all are done, so many `together` at most."""
        if together < pixels:
            self._pixels = together
            self._fitted = 0
        elif 2 * pixels > self._pixels:
            self._fitted += 1
            if self._fitted == FITTING_BEFORE_MORE:
                self._pixels *= 2
                self._fitted = 0


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
