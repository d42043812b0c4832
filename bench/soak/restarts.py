"""Kills a worker now and then, and sees when the next one is ready."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import psutil

from scripts.torchserve import Server

POLL_S = 0.1
# Without an end the run is over before the worker is back.
NEVER = float("inf")

# Process ids of the workers that are ready.
ReadyWorkers = Callable[[], set[int]]


@dataclass(frozen=True)
class Restart:
    """A worker that was killed; seconds since 1970, NEVER where no other one was ready in time."""

    killed_at: float
    back_at: float

    @property
    def down_s(self) -> float:
        """How long it took."""
        return self.back_at - self.killed_at

    def touches(self, begin: float, end: float) -> bool:
        """Whether a time overlaps with it."""
        return begin <= self.back_at and end >= self.killed_at


def ready_workers(server: Server) -> set[int]:
    """As TorchServe's management API tells them; none while it does not answer."""
    url = f"{server.management_url}/models/{server.model_name}"
    try:
        [model] = httpx.get(url, trust_env=False).raise_for_status().json()
    except httpx.HTTPError:
        return set()
    return {int(each["pid"]) for each in model["workers"] if each["status"] == "READY"}


@contextmanager
def killing(ready: ReadyWorkers, moments: Sequence[float]) -> Iterator[list[Restart]]:
    """Kills a worker at each moment while the block runs.

    Args:
        ready: tells the workers.
        moments: ascending, in seconds from now.

    Yields:
        The restarts so far.
    """
    restarts: list[Restart] = []
    done = threading.Event()
    begin = time.monotonic()

    def kill_all() -> None:
        for moment in moments:
            if done.wait(max(0.0, begin + moment - time.monotonic())):
                return
            while not (victims := ready()):
                if done.wait(POLL_S):
                    return
            _kill_one(victims, ready, restarts, done)

    thread = threading.Thread(target=kill_all, name="killing", daemon=True)
    thread.start()
    try:
        yield restarts
    finally:
        done.set()
        thread.join()


def _kill_one(
    victims: set[int], ready: ReadyWorkers, restarts: list[Restart], done: threading.Event
) -> None:
    killed_at = time.time()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(min(victims)).kill()
    # As many as before, the dead one not among them.
    while len(now := ready() - {min(victims)}) < len(victims) or not now:
        if done.wait(POLL_S):
            restarts.append(Restart(killed_at, NEVER))
            return
    restarts.append(Restart(killed_at, time.time()))
