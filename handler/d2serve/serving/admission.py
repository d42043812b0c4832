"""Limits on the work that waits in one process, and the estimate of when there is room again."""

import math
import time
from threading import Condition

from d2serve.errors import RequestError, overloaded

# Weight of the last batch in the moving average of the seconds per image.
SMOOTHING = 0.2
MAX_RETRY_AFTER_S = 60


class Admission:
    """Counts what waits or runs, and rejects requests beyond the limits.

    A request is also rejected if, at the measured rate, its turn would come after its deadline:
    work on it would be lost. Its first image waits for one image of each other request.

    Args:
        max_requests: maximum number of requests; `math.inf` for no limit. Their images do not
            count, because the order is fair: a large request delays only itself.
        max_bytes: maximum size of all request bodies together in bytes.

    Attributes:
        images: number of images that wait or are being processed.
    """

    def __init__(self, max_requests: float, max_bytes: float) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.images = 0
        self._requests = 0
        self._bytes = 0
        self._closed = False
        self._seconds_per_image = 0.0
        self._changed = Condition()

    def check_room(self) -> None:
        """Check that one more request would be admitted, whatever its size.

        Raises:
            RequestError: 503 with the time after which there is room.
        """
        with self._changed:
            self._check_open()

    def admit(self, size: int, deadline: float) -> None:
        """Count a request of `size` bytes as one image until its images are known.

        Args:
            size: size of its body in bytes.
            deadline: in seconds of `time.monotonic`.

        Raises:
            RequestError: 503 with the time after which there is room; nothing is counted then.
        """
        with self._changed:
            self._check_open()
            # A body beyond the limit for a single request has an error of its own.
            if self._bytes > 0 and self._bytes + size > self.max_bytes:
                raise self._full()
            if time.monotonic() + self._requests * self._seconds_per_image > deadline:
                raise overloaded("the request would wait too long", self.retry_after_s())
            self.images += 1
            self._requests += 1
            self._bytes += size

    def add(self, more: int) -> None:
        """Count more images of an admitted request, which counts as one image at first."""
        with self._changed:
            self.images += more

    def release(self, images: int, size: int) -> None:
        """Forget a request that was counted with these images and bytes."""
        with self._changed:
            self.images -= images
            self._requests -= 1
            self._bytes -= size
            self._changed.notify_all()

    def record_batch(self, images: int, elapsed_s: float) -> None:
        """Record a batch that kept the network busy for this time."""
        each = elapsed_s / images
        if self._seconds_per_image:
            each = SMOOTHING * each + (1 - SMOOTHING) * self._seconds_per_image
        self._seconds_per_image = each

    def retry_after_s(self) -> int:
        """Seconds after which all work that waits now is done, at the measured rate; at least 1."""
        wait_s = self.images * self._seconds_per_image
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s)))

    def close(self) -> None:
        """Reject later requests, and return when nothing waits or runs."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._requests == 0)

    def _check_open(self) -> None:
        if self._closed:
            raise overloaded("the server is stopping")
        if self._requests >= self.max_requests:
            raise self._full()

    def _full(self) -> RequestError:
        return overloaded("the request queue is full", self.retry_after_s())
