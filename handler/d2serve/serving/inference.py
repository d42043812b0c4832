"""The thread that runs a detector on the images that wait for it."""

import logging
import time
from collections.abc import Sequence
from typing import Protocol

import torch

from d2serve.detector.base import Detector, Failure, InferenceResult
from d2serve.errors import DeviceLostError
from d2serve.serving.batcher import Batcher
from d2serve.serving.log_context import request_context
from d2serve.serving.request_state import RequestState, Slot
from d2serve.serving.threads import start_thread

logger = logging.getLogger(__name__)


class BatchListener(Protocol):
    """Receives what happens in the inference thread."""

    def is_awaited(self, request: RequestState) -> bool:
        """Return whether a request still needs the results of its images."""

    def on_taken(self) -> None:
        """React to a batch that has left the queue."""

    def on_results(
        self, batch: Sequence[Slot], results: Sequence[InferenceResult], elapsed_s: float
    ) -> None:
        """Receive the results of a batch, which took `elapsed_s` seconds, in order."""

    def on_device_lost(self, error: DeviceLostError) -> None:
        """React to the loss of the device; the thread ends."""


class InferenceThread:
    """Runs batches until the batcher is closed, with the creator's number of torch threads.

    Args:
        detector: runs the images.
        batcher: the images that wait.
        listener: is called in this thread.

    Raises:
        RuntimeError: the thread does not start.
    """

    def __init__(self, detector: Detector, batcher: Batcher[Slot], listener: BatchListener) -> None:
        self._detector = detector
        self._batcher = batcher
        self._listener = listener
        self._started: float | None = None
        self._thread = start_thread("inference", torch.get_num_threads(), self._run)

    def join(self) -> None:
        """Return when the thread has ended."""
        self._thread.join()

    def forward_seconds(self) -> float:
        """Time in seconds that the current batch has taken so far; 0 if none runs."""
        started = self._started
        return 0.0 if started is None else time.monotonic() - started

    def _run(self) -> None:
        try:
            while self._run_next():
                pass
        except DeviceLostError as error:
            logger.critical("the device is lost", exc_info=True)
            self._listener.on_device_lost(error)
        except Exception as error:  # without this thread no request would ever get a response
            logger.critical("the inference thread failed", exc_info=True)
            self._listener.on_device_lost(DeviceLostError(str(error)))

    def _run_next(self) -> bool:
        """Run the images of the next batch that are still awaited; False after the end."""
        batch = self._batcher.take()
        if batch is None:
            return False
        self._listener.on_taken()
        awaited = [slot for slot in batch if self._listener.is_awaited(slot.request)]
        if awaited:
            self._run_batch(awaited)
        return True

    def _run_batch(self, batch: Sequence[Slot]) -> None:
        started = self._started = time.monotonic()
        for slot in batch:
            slot.image.waited_s += started - slot.image.ready_at
        with request_context(*dict.fromkeys(slot.request.received.request_id for slot in batch)):
            try:
                results = self._results(batch)
            finally:
                self._started = None
        self._listener.on_results(batch, results, time.monotonic() - started)

    def _results(self, batch: Sequence[Slot]) -> Sequence[InferenceResult]:
        try:
            results = self._detector.run([slot.preprocessed for slot in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} images")
            return results
        except Exception:  # the thread must live on for later requests
            logger.exception("the detector failed")
            return [InferenceResult(Failure.ERROR, forward_ms=0.0, batch=0)] * len(batch)
