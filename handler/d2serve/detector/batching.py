"""Run images through a network in batches without changing their results."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import (
    Failure,
    ForwardLog,
    ForwardPass,
    InferenceResult,
    PreprocessedImage,
    Size,
    Stopwatch,
    classify_failure,
)
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
# Resized images UInt8[3, H, W] and their original sizes -> detections, in order.
Network: TypeAlias = Callable[[Sequence[Tensor], Sequence[Size]], list[Detections]]
# Forward passes near the limit that must succeed before a larger one is tried: the memory may have
# become free, and a failed try costs one forward pass.
PASSES_BEFORE_GROWTH = 100
# Side of the image that warms up a network which does not resize.
WARM_UP_SIDE = 256


class BatchedDetector(ABC):
    """Base class of the detectors: images in, detections out, many at a time.

    Args:
        padded_sizes: see `BatchRunner`.
        settings: `padding` and `images_per_forward` determine the batches.
    """

    def __init__(self, padded_sizes: Callable[[Size], Sequence[Size]], settings: Settings) -> None:
        self.runner = BatchRunner(self._run_network, padded_sizes, settings)

    @property
    def forward_passes(self) -> ForwardLog:
        """The forward passes since the log was last read."""
        return self.runner.forward_passes

    def warm_up(self) -> None:
        """Run one gray image, so that the first request does not wait for one-time set-up.

        Raises:
            Exception: the network cannot run.
        """
        side = self._min_size() or WARM_UP_SIDE
        preprocessed = self.preprocess(
            np.full((side, side, max(self.channels, 3)), 127, dtype=np.uint8)
        )
        self._run_network([preprocessed.image], [preprocessed.size_hw])

    def batch_key(self, image: PreprocessedImage) -> Hashable:
        """Return the key of images that can run together."""
        return self.runner.batch_key(image)

    def padded_pixels(self, image: PreprocessedImage) -> int:
        """Number of pixels of the image's versions as padded for the network."""
        return self.runner.padded_pixels(image)

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        """Run images of equal keys; results in the same order."""
        return list(self.runner.run(images))

    def stream(self, images: Iterable[PreprocessedImage]) -> Iterator[tuple[int, InferenceResult]]:
        """Yield each image's position and result, batch by batch."""
        return self.runner.stream(images)

    def detect(self, images: Sequence[RGBImage]) -> list[InferenceResult]:
        """Run UInt8[H, W, 3] RGB images of any sizes; results in the same order."""
        results = dict(self.stream(map(self.preprocess, images)))
        return [results[position] for position in range(len(results))]

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels of the network's input: 1, 3 or 4."""

    @abstractmethod
    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        """Convert UInt8[H, W, 3] RGB to the network's channel order and size."""

    @abstractmethod
    def _min_size(self) -> int:
        """The length that an image's shorter side is resized to; 0 for no resizing."""

    @abstractmethod
    def _run_network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        """Run preprocessed images with these original heights and widths; results in order."""


class BatchRunner:
    """Runs images in batches of equal padded sizes, and isolates images that fail.

    Args:
        network: runs one batch.
        padded_sizes: returns the heights and widths that the versions of an image of a height and
            width have in the network when it runs alone; one, or several that augment it.
        settings: `padding` and `images_per_forward` determine the batches.

    Attributes:
        forward_passes: the log of the forward passes.
    """

    def __init__(
        self, network: Network, padded_sizes: Callable[[Size], Sequence[Size]], settings: Settings
    ) -> None:
        self.network = network
        self.padded_sizes = padded_sizes
        self.settings = settings
        self.forward_passes = ForwardLog()
        self.memory = MemoryLimit()

    def stream(self, images: Iterable[PreprocessedImage]) -> Iterator[tuple[int, InferenceResult]]:
        """Yield each image's position and result as soon as it is known.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        for batch in group(images, self.batch_key, self.settings.images_per_forward):
            positions = [position for position, _ in batch]
            results = self.run([image for _, image in batch])
            yield from zip(positions, results, strict=True)

    def batch_key(self, preprocessed: PreprocessedImage) -> Hashable:
        """Return the key of images that can run together: the padded sizes, or the orientation."""
        sizes_hw = self._padded_sizes_of(preprocessed)
        if self.settings.padding == "batch":
            # Landscape and portrait images would pad each other to a square.
            height, width = max(sizes_hw, key=math.prod)
            return (height > width) - (height < width)
        return tuple(sizes_hw)

    def padded_pixels(self, preprocessed: PreprocessedImage) -> int:
        """Number of pixels of the image's versions as padded for the network when it runs alone."""
        return sum(map(math.prod, self._padded_sizes_of(preprocessed)))

    def run(self, images: Sequence[PreprocessedImage]) -> Iterator[InferenceResult]:
        """Yield the results of images of equal keys, in order.

        Runs no more images at once than have fitted the memory. A batch that fails for lack of
        memory is run again in halves, one that fails otherwise image by image, so that only the
        failing images remain.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        start = 0
        while start < len(images):
            # Pixels of the largest image in the network.
            pixels = max(map(self.padded_pixels, images[start:]))
            part = images[start : start + (self.memory.max_images(pixels) or len(images))]
            results, fitted = self._run_batch(part)
            # An image that fails alone does not show how many other ones fit.
            if not any(isinstance(result.output, Failure) for result in results):
                self.memory.record(pixels * len(part), together=pixels * fitted)
            yield from results
            start += len(part)

    def _run_batch(self, images: Sequence[PreprocessedImage]) -> tuple[list[InferenceResult], int]:
        """Return the results in order, and the number of images that fitted the memory together."""
        watch = Stopwatch()
        output = self._try_network(images)
        elapsed_ms, count = watch.elapsed_ms(), len(images)
        if not isinstance(output, tuple):
            self.forward_passes.add(ForwardPass(count, elapsed_ms))
            return [InferenceResult(detections, elapsed_ms, count) for detections in output], count
        failure, error = output
        out_of_memory = failure is Failure.OUT_OF_MEMORY
        self.forward_passes.add(
            ForwardPass(count, elapsed_ms, failed=True, out_of_memory=out_of_memory)
        )
        if count == 1:
            return [InferenceResult(failure, elapsed_ms, batch=1, error=error)], 1
        # Errors except a lack of memory are deterministic as a rule: halves would fail again.
        step = (count + 1) // 2 if out_of_memory else 1
        parts = [self._run_batch(images[start : start + step]) for start in range(0, count, step)]
        fitted = max(part_fitted for _, part_fitted in parts) if out_of_memory else count
        return [result for results, _ in parts for result in results], fitted

    def _try_network(
        self, images: Sequence[PreprocessedImage]
    ) -> list[Detections] | tuple[Failure, Exception]:
        """Run the network; device memory of a failed forward pass is free again on return."""
        try:
            return self.network([each.image for each in images], [each.size_hw for each in images])
        except Exception as raised:  # the other images of the batch are run again without it
            logger.exception("a forward pass of %d images failed", len(images))
            failure = classify_failure(raised)
            # The frames of a traceback would keep the tensors alive.
            error = raised.with_traceback(None)
        if failure is Failure.OUT_OF_MEMORY:
            torch.cuda.empty_cache()
        return failure, error

    def _padded_sizes_of(self, preprocessed: PreprocessedImage) -> Sequence[Size]:
        height, width = preprocessed.image.shape[1:]
        return self.padded_sizes((height, width))


class MemoryLimit:
    """Limit on the pixels of one forward pass: unlimited until one exceeds the memory."""

    def __init__(self) -> None:
        self._pixels = math.inf
        self._passes_near_limit = 0

    def max_images(self, pixels_each: int) -> int | None:
        """Maximum number of images of a size in one forward pass, at least 1; None: any number."""
        if math.isinf(self._pixels):
            return None
        return max(1, int(self._pixels // pixels_each))

    def record(self, pixels: int, *, together: int) -> None:
        """Record a completed batch of `pixels`, run at most `together` at a time."""
        if together < pixels:
            self._pixels = together
            self._passes_near_limit = 0
        elif 2 * pixels > self._pixels:
            self._passes_near_limit += 1
            if self._passes_near_limit == PASSES_BEFORE_GROWTH:
                self._pixels *= 2
                self._passes_near_limit = 0


def group(
    items: Iterable[Item], key: Callable[[Item], Hashable], limit: int
) -> Iterator[list[tuple[int, Item]]]:
    """Group items of equal keys, each with its position: full groups at once, the rest at the end.

    Items are consumed only when they are needed, so that the next ones can be produced while a
    full group is processed.

    Args:
        items: any number of items.
        key: returns the common key of a group.
        limit: the size of a full group, at least 1.

    Examples:
        >>> list(group("abab", str, 8))
        [[(0, 'a'), (2, 'a')], [(1, 'b'), (3, 'b')]]
    """
    groups: dict[Hashable, list[tuple[int, Item]]] = {}
    for position, item in enumerate(items):
        own_key = key(item)
        groups.setdefault(own_key, []).append((position, item))
        if len(groups[own_key]) == limit:
            yield groups.pop(own_key)
    yield from groups.values()
