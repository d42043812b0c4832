"""uvicorn's server without its frequent timer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

# The Date header has seconds.
DATE_INTERVAL_S = 1.0


class HttpServer(uvicorn.Server):
    """uvicorn's server, whose owner handles signals and stops it.

    uvicorn's own loop wakes up ten times a second, also during forward passes, and then takes a
    core from one of the network's threads.

    Args:
        config: uvicorn's.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop accepting connections, and end `serve` when the open ones are closed."""
        self.should_exit = True
        self._stopping.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signal handlers as they are."""
        yield

    async def main_loop(self) -> None:
        """Update the Date header until `stop`."""
        while not await self.on_tick(0):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DATE_INTERVAL_S)
