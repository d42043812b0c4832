"""What went through the network together."""

from collections import deque
from dataclasses import dataclass

# More than any batch takes; bounds memory where nobody asks for them.
MOST_KEPT = 10_000


@dataclass(frozen=True)
class Forward:
    """One call of the network.

    Attributes:
        images: how many pictures went in.
        elapsed_ms: how long it took, in milliseconds.
        failed: it gave nothing; several pictures were then split.
        out_of_memory: it failed for lack of memory.
    """

    images: int
    elapsed_ms: float
    failed: bool = False
    out_of_memory: bool = False


class ForwardLog:
    """Forwards in the order in which they ended, from whichever threads ran them."""

    def __init__(self) -> None:
        # A deque's append and popleft are atomic.
        self._forwards: deque[Forward] = deque(maxlen=MOST_KEPT)

    def add(self, forward: Forward) -> None:
        """Remembers a forward until it is taken."""
        self._forwards.append(forward)

    def take(self) -> tuple[Forward, ...]:
        """The forwards that ended since they were last taken."""
        return tuple(self._forwards.popleft() for _ in range(len(self._forwards)))
