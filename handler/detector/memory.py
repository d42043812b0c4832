"""How many pictures fit the device together, as its failures have taught."""

import math

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
