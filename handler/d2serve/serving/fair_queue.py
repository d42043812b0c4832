"""Fair order of the images of many requests (start-time fair queueing)."""

from collections.abc import Callable
from threading import Lock


class FairClock:
    """Assigns turns, in which large requests do not hold up small ones.

    The images of a request get consecutive turns from the current one, so that the first image of
    a new request comes before the rest of a request with many images. A turn ends when it has had
    as many images as there are requests: a stream of small requests does not hold up the rest of
    a large one either. Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing" (SIGCOMM
    1996), with images of equal cost.

    Args:
        requests: returns the number of requests that wait or are being processed.

    Examples:
        >>> clock = FairClock(lambda: 2)
        >>> clock.turns(3)
        range(0, 3)
        >>> clock.advance(1)
        >>> clock.turns(2)
        range(1, 3)
    """

    def __init__(self, requests: Callable[[], int]) -> None:
        self._requests = requests
        self._now = 0
        self._processed = 0
        self._lock = Lock()

    def turns(self, count: int) -> range:
        """Return the turns of the images of a request that arrives now."""
        return range(self._now, self._now + count)

    def advance(self, turn: int) -> None:
        """Record that the image with this turn is being processed."""
        with self._lock:
            if turn > self._now:
                self._now, self._processed = turn, 0
            self._processed += 1
            if self._processed > self._requests():
                self._now, self._processed = self._now + 1, 1
