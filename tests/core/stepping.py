"""Stand-ins that let a test run the network batch by batch."""

from collections.abc import Sequence
from queue import SimpleQueue
from threading import Event, Semaphore

import pytest

from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.serving.batcher import Batcher
from tests.fakes import FakeDetector

TIMEOUT_S = 20


class SteppedDetector(FakeDetector):
    """Starts a batch when it has one, and ends it when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self._started: SimpleQueue[list[int]] = SimpleQueue()
        self._may_end = Semaphore(0)
        self._runs_freely = Event()

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        self._started.put([int(each.image[0, 0, 0]) for each in images])
        if not self._runs_freely.is_set():
            assert self._may_end.acquire(timeout=TIMEOUT_S)
        return super().run(images)

    def next_batch(self) -> list[int]:
        """Wait for the start of a batch; the red values of its images' first pixels."""
        return self._started.get(timeout=TIMEOUT_S)

    def end_batch(self) -> None:
        self._may_end.release()

    def run_freely(self) -> None:
        """End the running batch, and all later ones without the test."""
        self._runs_freely.set()
        self._may_end.release()


class Arrivals:
    """Waits until images wait for the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._arrived = Semaphore(0)
        put = Batcher.put

        def put_and_signal(*arguments: object) -> None:
            put(*arguments)  # type: ignore[arg-type]
            self._arrived.release()

        monkeypatch.setattr(Batcher, "put", put_and_signal)

    def wait(self, images: int) -> None:
        """Wait for this number of images since the last call."""
        for _ in range(images):
            assert self._arrived.acquire(timeout=TIMEOUT_S)
