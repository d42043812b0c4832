"""The images that wait for the network, handed over in batches."""

import bisect
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")
# Numbers of full batches that wait at most before decoding pauses.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class BatchLimits:
    """The largest batch.

    Attributes:
        images: maximum number of images.
        pixels: maximum number of pixels of all images together, as padded for the network; a
            larger image runs alone.
        wait_s: maximum time in seconds to wait for a batch to fill while the network is idle.
    """

    images: int
    pixels: int
    wait_s: float = 0.0


@dataclass(frozen=True, order=True)
class Waiting(Generic[Item]):
    """An image that waits for the network.

    Attributes:
        turn: its turn, see `FairClock`.
        number: its number in order of arrival.
        item: the image.
        key: images with equal keys can run together.
        pixels: number of its pixels as padded for the network.
        since: time of its arrival in seconds of `time.monotonic`.
    """

    turn: int
    number: int
    item: Item = field(compare=False)
    key: Hashable = field(compare=False)
    pixels: int = field(compare=False)
    since: float = field(compare=False)


class Batcher(Generic[Item]):
    """Hands over whatever waits when the network becomes free.

    The image with the earliest turn always belongs to the next batch and decides its padded size,
    so that no size starves; others of its size follow in order of their turns.

    Args:
        limits: of each batch.
        expects_more: returns whether more images may arrive soon; a batch waits for them only
            then, and at most `limits.wait_s`.

    Examples:
        >>> batcher = Batcher(BatchLimits(images=2, pixels=1000))
        >>> for turn, name in enumerate("aba"):
        ...     batcher.put(f"{name}{turn}", turn, key=name, pixels=100)
        >>> batcher.take()
        ['a0', 'a2']
    """

    def __init__(
        self, limits: BatchLimits, expects_more: Callable[[], bool] = lambda: True
    ) -> None:
        self.limits = limits
        self._expects_more = expects_more
        self._waiting: list[Waiting[Item]] = []
        self._numbers = count()
        self._changed = Condition()
        self._closed = False
        self._holds = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hand over no batch while the `with` block runs."""
        with self._changed:
            self._holds += 1
        try:
            yield
        finally:
            with self._changed:
                self._holds -= 1
                self._changed.notify_all()

    def put(self, item: Item, turn: int, key: Hashable, pixels: int) -> None:
        """Add an image; it is dropped after `close`."""
        with self._changed:
            if self._closed:
                return
            waiting = Waiting(turn, next(self._numbers), item, key, pixels, time.monotonic())
            bisect.insort(self._waiting, waiting)
            self._changed.notify_all()

    def take(self) -> list[Item] | None:
        """Wait for images and return a batch; None after `close`, once no image waits."""
        with self._changed:
            while not self._waiting or self._holds:
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()
            while (remaining_s := self._remaining_wait_s()) > 0:
                self._changed.wait(remaining_s)
            batch = self._next_batch()
            self._waiting = [each for each in self._waiting if each not in batch]
        return [each.item for each in batch]

    def has_enough(self) -> bool:
        """Return whether enough images wait to keep the network busy; False after `close`."""
        return not self._closed and len(self._waiting) >= BATCHES_AHEAD * self.limits.images

    def wake(self) -> None:
        """Check again whether more images may arrive soon."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End `take` once no image waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _remaining_wait_s(self) -> float:
        """Seconds that the next batch still waits; 0 if it starts now."""
        if not self.limits.wait_s or self._closed or self.has_enough():
            return 0.0
        if len(self._next_batch()) >= self.limits.images or not self._expects_more():
            return 0.0
        oldest = min(each.since for each in self._waiting)
        return oldest + self.limits.wait_s - time.monotonic()

    def _next_batch(self) -> list[Waiting[Item]]:
        first, *_ = self._waiting
        batch: list[Waiting[Item]] = []
        largest = 0
        for each in self._waiting:
            if each.key != first.key:
                continue
            largest = max(largest, each.pixels)  # all are padded to its size
            pixels = largest * (len(batch) + 1)
            if batch and (len(batch) == self.limits.images or pixels > self.limits.pixels):
                break
            batch.append(each)
        return batch
