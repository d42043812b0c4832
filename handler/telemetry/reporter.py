"""All that a worker tells of itself."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from handler.telemetry.forwards import ForwardLog
from handler.telemetry.memory import read_memory
from handler.telemetry.metrics import batch_samples, memory_samples, start_samples
from handler.telemetry.publisher import Publisher
from handler.telemetry.reports import BatchReport, RequestReport
from handler.telemetry.request_log import log_requests

logger = logging.getLogger(__name__)

# Prometheus asks every 15 to 60 seconds.
MEMORY_EVERY_S = 10.0


@dataclass
class Reporter:
    """Publishes metrics and writes the request log.

    Attributes:
        publisher: where samples go.
        forwards: the network's, since the last batch.
        device: whose memory is told.
        model_name: for the log.
        logs_requests: whether there is a line a request.
    """

    publisher: Publisher
    forwards: ForwardLog
    device: torch.device
    model_name: str
    logs_requests: bool
    _memory_due_s: float = field(default=0.0, init=False)

    def started(self) -> None:
        """The worker has loaded its model and is warm."""
        # No client asked for the forwards so far.
        self.forwards.take()
        self.publisher.publish(start_samples())

    def answered(self, requests: Sequence[RequestReport], elapsed_ms: float, worker: str) -> None:
        """A batch is answered, by the worker of that name; raises nothing."""
        batch = BatchReport(tuple(requests), self.forwards.take(), elapsed_ms)
        try:
            self._tell(batch, worker)
        except Exception:  # the answers are good, and have to go out
            logger.exception("a batch was answered, but not reported")

    def _tell(self, batch: BatchReport, worker: str) -> None:
        self.publisher.publish(batch_samples(batch))
        if self.logs_requests:
            log_requests(batch, self.model_name)
        if time.monotonic() >= self._memory_due_s:
            self._memory_due_s = time.monotonic() + MEMORY_EVERY_S
            self.publisher.publish(memory_samples(read_memory(self.device), worker))
