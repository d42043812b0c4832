"""How many pictures fit the device together, as its failures have taught."""

import math

# So many forwards near the limit have to fit before a larger one is tried again: what filled the
# memory may be gone, and a try that fails costs one forward.
FITTING_BEFORE_MORE = 100


class MemoryLimit:
    """A bound on the pixels of one forward: none at first, halved by each failure for memory."""

    def __init__(self) -> None:
        self._pixels = math.inf
        self._fitted = 0

    def pictures(self, pixels_each: int) -> int | None:
        """How many pictures of a size may run together, at least 1; None: any number."""
        if math.isinf(self._pixels):
            return None
        return max(1, int(self._pixels // pixels_each))

    def failed(self, pixels: int) -> None:
        """So many pixels did not fit."""
        self._pixels = min(self._pixels, pixels / 2)
        self._fitted = 0

    def fitted(self, pixels: int) -> None:
        """So many pixels did."""
        if 2 * pixels <= self._pixels:
            return
        self._fitted += 1
        if self._fitted == FITTING_BEFORE_MORE:
            self._pixels *= 2
            self._fitted = 0
