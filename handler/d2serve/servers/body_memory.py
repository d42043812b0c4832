"""Limit the memory of all request bodies of a process together."""

from collections.abc import Iterator
from contextlib import contextmanager

from d2serve.errors import overloaded


class BodyMemory:
    """Counts the bytes of the bodies that are being received or processed, in one event loop.

    Attributes:
        held: number of bytes.

    Examples:
        >>> memory = BodyMemory()
        >>> with memory.hold(100) as body:
        ...     body.grow_to(70)
        ...     memory.held
        70
        >>> memory.held
        0
    """

    def __init__(self) -> None:
        self.held = 0

    @contextmanager
    def hold(self, max_bytes: int) -> "Iterator[HeldBody]":
        """Count a body until the `with` block ends.

        Args:
            max_bytes: maximum size of all bodies together; a single body may be larger.
        """
        body = HeldBody(self, max_bytes)
        try:
            yield body
        finally:
            self.held -= body.size


class HeldBody:
    """The share of one body.

    Attributes:
        size: number of bytes.
    """

    def __init__(self, memory: BodyMemory, max_bytes: int) -> None:
        self.size = 0
        self._memory = memory
        self._max_bytes = max_bytes

    def grow_to(self, size: int) -> None:
        """Count `size` bytes, unless more are counted already.

        Raises:
            RequestError: 503, the bodies together would exceed the limit.
        """
        if size > self.size:
            self.require(size)
            self._memory.held += size - self.size
            self.size = size

    def require(self, size: int) -> None:
        """Check that `size` bytes can be counted now, without counting them.

        Raises:
            RequestError: 503, the bodies together would exceed the limit.
        """
        others = self._memory.held - self.size
        if others and others + size > self._max_bytes:
            raise overloaded("the request bodies in memory have reached their limit")
